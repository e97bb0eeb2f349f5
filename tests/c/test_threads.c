/* Handles in several threads at once, for ThreadSanitizer: different ones share nothing that is written, and one that all
 * threads only read is the same for each. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/metav.h"
#include "harness.h"

enum { THREADS = 4, STEPS = 5, MODELS = 40, QUERIES = 30, OUTPUTS = 10, COUNT = MODELS * QUERIES * OUTPUTS };

/* What one thread works on; it reads `responses`, which all share. */
typedef struct job {
    const char *kind;
    const float *responses;
    float gradient[COUNT], scores[MODELS], queries[COUNT];
    mv_status status;
} job;

static void
train(job *self, mv_verifier *verifier)
{
    uint8_t roles[MODELS];
    const mv_step_options options = {.learning_rate = 1e-2,
                                     .owner = 1.0,
                                     .positive = 1.0,
                                     .negative = 1.0,
                                     .mix = 0.2,
                                     .noise = 0.1,
                                     .dropout = 0.1,
                                     .update = true};
    for (size_t i = 0; i < MODELS; i++) {
        roles[i] = (uint8_t)(i % MV_ROLE_COUNT);
    }
    for (int step = 0; step < STEPS && !self->status; step++) {
        double loss;
        self->status = mv_verifier_step(verifier, MODELS, self->responses, roles, &options, self->gradient, &loss);
    }
    if (!self->status) {
        self->status = mv_verifier_scores(verifier, MODELS, self->responses, self->scores);
    }
}

static void
move_queries(job *self)
{
    const mv_query_config config = {MODELS, QUERIES * OUTPUTS, 0.5, 256};
    float lower[QUERIES * OUTPUTS], upper[QUERIES * OUTPUTS];
    mv_query_optimizer *optimizer = NULL;
    for (size_t i = 0; i < QUERIES * OUTPUTS; i++) {
        lower[i] = -1.0f;
        upper[i] = 1.0f;
    }
    self->status = mv_query_optimizer_create(&config, self->responses, lower, upper, &optimizer);
    for (int step = 0; step < STEPS && !self->status; step++) {
        self->status = mv_query_optimizer_update(optimizer, self->gradient, 0.1, self->queries);
    }
    mv_query_optimizer_destroy(optimizer);
}

static void *
work(void *argument)
{
    job *self = argument;
    mv_verifier_config config = {mv_kind_find(self->kind), QUERIES, OUTPUTS, 16, {0}, 7};
    mv_verifier *verifier = NULL;
    self->status = mv_view_parse("logprob", &config.view);
    if (!self->status) {
        self->status = mv_verifier_create(&config, &verifier);
    }
    if (!self->status) {
        self->status = mv_verifier_standardize(verifier, MODELS, self->responses);
    }
    if (!self->status && mv_kind_get_traits(config.kind).closed_form) {
        const float *negatives = self->responses + QUERIES * OUTPUTS;
        self->status = mv_verifier_fit_closed_form(verifier, self->responses, MODELS - 1, negatives, 0.2, 0.01);
    }
    if (!self->status) {
        train(self, verifier);
    }
    if (!self->status) {
        move_queries(self);
    }
    mv_verifier_destroy(verifier);
    return NULL;
}

/* Each kind alone, then in all threads at once: bit for bit the same. */
static void
test_different_handles_work_at_once(const char *kind, const float *responses)
{
    pthread_t threads[THREADS];
    job *jobs = calloc(THREADS + 1, sizeof *jobs);
    CHECK(jobs != NULL);
    if (!jobs) {
        return;
    }
    for (size_t i = 0; i <= THREADS; i++) {
        jobs[i].kind = kind;
        jobs[i].responses = responses;
    }
    work(&jobs[THREADS]);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, &jobs[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(jobs[i].status == MV_OK);
        CHECK(memcmp(jobs[i].scores, jobs[THREADS].scores, sizeof jobs[i].scores) == 0);
        CHECK(memcmp(jobs[i].queries, jobs[THREADS].queries, sizeof jobs[i].queries) == 0);
    }
    free(jobs);
}

/* What one of the threads reads of a verifier that all share. */
typedef struct reading {
    mv_verifier *verifier;
    const float *responses;
    float scores[STEPS][MODELS], logits[STEPS][MODELS];
    mv_status status;
} reading;

static void *
read_verifier(void *argument)
{
    reading *self = argument;
    for (size_t step = 0; step < STEPS && !self->status; step++) {
        mv_parameter list[MV_MAX_PARAMETERS];
        mv_verifier *copy = NULL;
        self->status = mv_verifier_scores(self->verifier, MODELS, self->responses, self->scores[step]);
        if (!self->status) {
            self->status = mv_verifier_copy(self->verifier, &copy);
        }
        if (!self->status) {
            self->status = mv_verifier_logits(copy, MODELS, self->responses, self->logits[step]);
        }
        if (!self->status && !mv_verifier_parameters(self->verifier, list)) {
            self->status = MV_ERROR_KIND;
        }
        mv_verifier_destroy(copy);
    }
    return NULL;
}

static void
test_one_handle_is_read_at_once(const char *kind, const float *responses)
{
    pthread_t threads[THREADS];
    mv_verifier_config config = {mv_kind_find(kind), QUERIES, OUTPUTS, 16, {0}, 7};
    mv_verifier *verifier = NULL;
    reading *readings = calloc(THREADS + 1, sizeof *readings);
    CHECK(readings != NULL && mv_view_parse("logprob", &config.view) == MV_OK);
    CHECK(mv_verifier_create(&config, &verifier) == MV_OK);
    if (!readings || !verifier) {
        goto done;
    }
    CHECK(mv_verifier_standardize(verifier, MODELS, responses) == MV_OK);
    if (mv_kind_get_traits(config.kind).closed_form) {
        const float *negatives = responses + QUERIES * OUTPUTS;
        CHECK(mv_verifier_fit_closed_form(verifier, responses, MODELS - 1, negatives, 0.2, 0.01) == MV_OK);
    }
    for (size_t i = 0; i <= THREADS; i++) {
        readings[i].verifier = verifier;
        readings[i].responses = responses;
    }
    read_verifier(&readings[THREADS]);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_verifier, &readings[i]) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(readings[i].status == MV_OK);
        CHECK(memcmp(readings[i].scores, readings[THREADS].scores, sizeof readings[i].scores) == 0);
        CHECK(memcmp(readings[i].logits, readings[THREADS].logits, sizeof readings[i].logits) == 0);
    }
done:
    mv_verifier_destroy(verifier);
    free(readings);
}

int
main(void)
{
    static float responses[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        responses[i] = (float)((i * 7919) % 1000) / 1000.0f - 0.5f;
    }
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    for (size_t k = 0; k < kinds; k++) {
        test_different_handles_work_at_once(names[k], responses);
        test_one_handle_is_read_at_once(names[k], responses);
    }
    mv_pool_stop();
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
