/* The C core without Python: laws, refusals, and every allocation failing once. Build with -DMV_TEST_ALLOCATIONS. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/metav.h"
#include "../../csrc/mv_gemm.h"
#include "../../csrc/mv_memory.h"
#include "../../csrc/mv_random.h"
#include "harness.h"

enum { MODELS = 6, QUERIES = 4, OUTPUTS = 3, FEATURES = QUERIES * OUTPUTS, COUNT = MODELS * FEATURES };

static const uint8_t roles[MODELS] = {MV_ROLE_OWNER,    MV_ROLE_POSITIVE, MV_ROLE_POSITIVE,
                                      MV_ROLE_NEGATIVE, MV_ROLE_NEGATIVE, MV_ROLE_NEGATIVE};

static const mv_step_options plain = {
    .learning_rate = 1e-2, .owner = 1.0, .positive = 1.0, .negative = 1.0, .update = true};

static void
fill(float *values, size_t count, uint64_t seed)
{
    memset(values, 0, count * sizeof *values);
    mv_random_add_normal(mv_stream_open(seed, MV_RANDOM_INIT, 0), 1.0f, count, values);
}

static mv_verifier_config
config_of(mv_verifier_kind kind, mv_view_kind view, int parameter)
{
    return (mv_verifier_config){kind, QUERIES, OUTPUTS, 5, {view, parameter}, 7};
}

/* A fitted verifier; NULL if something failed. */
static mv_verifier *
make_verifier(mv_verifier_kind kind, mv_view_kind view, int parameter, const float *responses)
{
    const mv_verifier_config config = config_of(kind, view, parameter);
    mv_verifier *verifier = NULL;
    if (mv_verifier_create(&config, &verifier) != MV_OK) {
        return NULL;
    }
    mv_status status = mv_verifier_standardize(verifier, MODELS, responses);
    if (!status && kind == MV_VERIFIER_MATCHED) {
        status = mv_verifier_fit_matched(verifier, responses, 3, responses + 3 * FEATURES, 0.2, 0.01);
    }
    if (status) {
        mv_verifier_destroy(verifier);
        return NULL;
    }
    return verifier;
}

static void
test_views_are_parsed(void)
{
    static const struct {
        const char *text;
        mv_status status;
        mv_view view;
    } cases[] = {
        {"identity", MV_OK, {MV_VIEW_IDENTITY, 0}},
        {"identity_round(3)", MV_OK, {MV_VIEW_IDENTITY_ROUND, 3}},
        {"logprob", MV_OK, {MV_VIEW_LOGPROB, 0}},
        {"round(0)", MV_OK, {MV_VIEW_ROUND, 0}},
        {"topk(12)", MV_OK, {MV_VIEW_TOPK, 12}},
        {"label", MV_OK, {MV_VIEW_LABEL, 0}},
        {"", MV_ERROR_VIEW_NAME, {0}},
        {"(", MV_ERROR_VIEW_NAME, {0}},
        {"round", MV_ERROR_VIEW_NAME, {0}},
        {"round(", MV_ERROR_VIEW_NAME, {0}},
        {"round()", MV_ERROR_VIEW_NAME, {0}},
        {"round(1", MV_ERROR_VIEW_NAME, {0}},
        {"round(1)x", MV_ERROR_VIEW_NAME, {0}},
        {"label(1)", MV_ERROR_VIEW_NAME, {0}},
        {"labels", MV_ERROR_VIEW_NAME, {0}},
        {"topk(0)", MV_ERROR_VIEW_PARAMETER, {0}},
        {"round(9)", MV_ERROR_VIEW_PARAMETER, {0}},
        {"topk(123456789012345678901234567890)", MV_ERROR_VIEW_PARAMETER, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mv_view view = {MV_VIEW_IDENTITY, 0};
        CHECK(mv_view_parse(cases[i].text, &view) == cases[i].status);
        if (cases[i].status == MV_OK) {
            CHECK(view.kind == cases[i].view.kind && view.parameter == cases[i].view.parameter);
        }
    }
}

static void
test_every_status_has_a_text(void)
{
    for (int status = 0; status < MV_STATUS_COUNT; status++) {
        CHECK(mv_status_text((mv_status)status) != NULL && strlen(mv_status_text((mv_status)status)) > 3);
    }
    CHECK(strcmp(mv_status_text((mv_status)9999), "unknown status") == 0);
}

static void
test_impossible_sizes_are_refused(void)
{
    static const size_t sizes[][3] = {{0, 1, 1},
                                      {1, 0, 1},
                                      {1, 1, 0},
                                      {SIZE_MAX, 2, 1},
                                      {SIZE_MAX / 2, SIZE_MAX / 2, 8},
                                      {(size_t)1 << 40, (size_t)1 << 20, (size_t)1 << 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mv_verifier_config config = config_of(MV_VERIFIER_MLP, MV_VIEW_IDENTITY, 0);
        config.queries = sizes[i][0];
        config.outputs = sizes[i][1];
        config.hidden = sizes[i][2];
        mv_verifier *verifier = NULL;
        CHECK(mv_verifier_create(&config, &verifier) == MV_ERROR_SIZE);
        CHECK(verifier == NULL);
    }
    float responses[COUNT];
    float out[MODELS];
    fill(responses, COUNT, 1);
    mv_verifier *verifier = make_verifier(MV_VERIFIER_MLP, MV_VIEW_IDENTITY, 0, responses);
    CHECK(mv_verifier_scores(verifier, 0, responses, out) == MV_ERROR_SIZE);
    CHECK(mv_verifier_scores(verifier, SIZE_MAX / 4, responses, out) == MV_ERROR_SIZE);
    mv_verifier_destroy(verifier);
}

/* The directional derivative along `direction` by central differences of the loss. */
static double
slope(mv_verifier *verifier, const mv_step_options *options, const float *responses, const float *direction)
{
    const float step = 2e-3f;
    float moved[COUNT];
    double losses[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < COUNT; i++) {
            moved[i] = responses[i] + (side ? step : -step) * direction[i];
        }
        CHECK(mv_verifier_step(verifier, MODELS, moved, roles, options, NULL, &losses[side]) == MV_OK);
    }
    return (losses[1] - losses[0]) / (2.0 * step);
}

static void
test_gradients_equal_finite_differences(void)
{
    for (int kind = MV_VERIFIER_MLP; kind <= MV_VERIFIER_MATCHED; kind++) {
        float responses[COUNT];
        float direction[COUNT];
        float gradient[COUNT];
        fill(responses, COUNT, 3);
        fill(direction, COUNT, 4);
        mv_verifier *verifier = make_verifier((mv_verifier_kind)kind, MV_VIEW_LOGPROB, 0, responses);
        mv_step_options options = plain;
        options.update = false;
        options.mix = 0.4;
        options.noise = 0.1;
        options.dropout = 0.2;
        double loss;
        double expected = 0.0;
        CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &options, gradient, &loss) == MV_OK);
        for (size_t i = 0; i < COUNT; i++) {
            expected += (double)gradient[i] * direction[i];
        }
        const double actual = slope(verifier, &options, responses, direction);
        CHECK(fabs(actual - expected) < 0.02 * fabs(expected) + 2e-3);
        CHECK(mv_verifier_get_steps(verifier) == 0);
        mv_verifier_destroy(verifier);
    }
}

static void
test_a_copy_is_independent_and_equal(void)
{
    for (int kind = MV_VERIFIER_MLP; kind <= MV_VERIFIER_MATCHED; kind++) {
        float responses[COUNT];
        fill(responses, COUNT, 5);
        mv_verifier *verifier = make_verifier((mv_verifier_kind)kind, MV_VIEW_LABEL, 0, responses);
        mv_verifier *copy = NULL;
        double first, second;
        CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &first) == MV_OK);
        CHECK(mv_verifier_copy(verifier, &copy) == MV_OK);
        CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &first) == MV_OK);
        CHECK(mv_verifier_get_steps(copy) == 1);
        CHECK(mv_verifier_step(copy, MODELS, responses, roles, &plain, NULL, &second) == MV_OK);
        CHECK(first == second);
        mv_verifier_destroy(copy);
        mv_verifier_destroy(verifier);
    }
    mv_verifier_destroy(NULL);
    mv_query_optimizer_destroy(NULL);
}

static void
test_kernels_equal_plain_sums(void)
{
    static const size_t shapes[][3] = {{1, 1, 1}, {3, 5, 2}, {7, 400, 33}, {2, 1000, 64}, {500, 3, 40}, {4, 9, 800}};
    const mv_gemm_kernels *kernels = mv_gemm_select();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t m = shapes[s][0];
        const size_t k = shapes[s][1];
        const size_t n = shapes[s][2];
        float *x = mv_alloc_floats(m * k);
        float *w = mv_alloc_floats(k * n);
        float *y = mv_alloc_floats(m * n);
        float *out = mv_alloc_floats(m * k + k * n + m * n);
        fill(x, m * k, 1);
        fill(w, k * n, 2);
        fill(y, m * n, 3);
        double worst = 0.0;
        kernels->forward(m, k, n, x, w, out);
        for (size_t i = 0; i < m * n; i++) {
            double sum = 0.0;
            for (size_t j = 0; j < k; j++) {
                sum += (double)x[i / n * k + j] * w[j * n + i % n];
            }
            worst = fmax(worst, fabs(sum - out[i]) / sqrt((double)k));
        }
        kernels->weight_gradient(m, k, n, x, y, out);
        for (size_t i = 0; i < k * n; i++) {
            double sum = 0.0;
            for (size_t j = 0; j < m; j++) {
                sum += (double)x[j * k + i / n] * y[j * n + i % n];
            }
            worst = fmax(worst, fabs(sum - out[i]) / sqrt((double)m));
        }
        kernels->input_gradient(m, k, n, y, w, out);
        for (size_t i = 0; i < m * k; i++) {
            double sum = 0.0;
            for (size_t j = 0; j < n; j++) {
                sum += (double)y[i / k * n + j] * w[i % k * n + j];
            }
            worst = fmax(worst, fabs(sum - out[i]) / sqrt((double)n));
        }
        CHECK(worst < 3e-6);
        mv_free(x);
        mv_free(w);
        mv_free(y);
        mv_free(out);
    }
}

static void
test_queries_stay_within_their_limits(void)
{
    enum { N = 5, F = 7 };
    float natural[N * F], lower[F], upper[F], gradient[N * F], queries[N * F];
    for (size_t j = 0; j < F; j++) {
        lower[j] = -1.0f;
        upper[j] = j ? 1.0f : -1.0f;
    }
    fill(natural, N * F, 6);
    for (size_t i = 0; i < N * F; i++) {
        natural[i] = i % F ? fmaxf(-1.0f, fminf(1.0f, natural[i])) : -1.0f;
    }
    const mv_query_config config = {N, F, 0.1, 256};
    mv_query_optimizer *optimizer = NULL;
    CHECK(mv_query_optimizer_create(&config, natural, lower, upper, &optimizer) == MV_OK);
    for (uint64_t step = 0; step < 20; step++) {
        fill(gradient, N * F, 100 + step);
        CHECK(mv_query_optimizer_update(optimizer, gradient, 0.1, queries) == MV_OK);
        for (size_t i = 0; i < N * F; i++) {
            CHECK(queries[i] >= lower[i % F] && queries[i] <= upper[i % F]);
            CHECK(fabsf(queries[i] - natural[i]) <= 0.2f + 1e-6f);
        }
    }
    gradient[3] = NAN;
    CHECK(mv_query_optimizer_update(optimizer, gradient, 0.1, queries) == MV_ERROR_GRADIENT);
    mv_query_optimizer_destroy(optimizer);
    natural[1] = 2.0f;
    optimizer = NULL;
    CHECK(mv_query_optimizer_create(&config, natural, lower, upper, &optimizer) == MV_ERROR_NATURAL);
    CHECK(optimizer == NULL);
}

static void
test_loading_is_all_or_nothing(void)
{
    float responses[COUNT];
    float before[MODELS];
    float after[MODELS];
    fill(responses, COUNT, 8);
    mv_verifier *verifier = make_verifier(MV_VERIFIER_MATCHED, MV_VIEW_IDENTITY, 0, responses);
    mv_verifier *other = make_verifier(MV_VERIFIER_MATCHED, MV_VIEW_LOGPROB, 0, responses);
    mv_parameter list[MV_MAX_PARAMETERS];
    const size_t count = mv_verifier_parameters(other, list);
    const char *culprit = NULL;
    CHECK(count == MV_MAX_PARAMETERS);
    CHECK(mv_verifier_scores(verifier, MODELS, responses, before) == MV_OK);
    CHECK(mv_verifier_load(verifier, list, count - 1, &culprit) == MV_ERROR_PARAMETER_MISSING);
    CHECK(culprit && strcmp(culprit, "scale") == 0);
    const mv_parameter kept = list[2];
    list[2] = list[0];
    CHECK(mv_verifier_load(verifier, list, count, &culprit) == MV_ERROR_PARAMETER_NAME);
    list[2] = kept;
    list[2].rows--;
    CHECK(mv_verifier_load(verifier, list, count, &culprit) == MV_ERROR_PARAMETER_SHAPE);
    CHECK(culprit && strcmp(culprit, "factor") == 0);
    list[2] = kept;
    mv_test_fail_allocation(1);
    CHECK(mv_verifier_load(verifier, list, count, &culprit) == MV_ERROR_MEMORY);
    mv_test_fail_allocation(0);
    CHECK(mv_verifier_scores(verifier, MODELS, responses, after) == MV_OK);
    CHECK(memcmp(before, after, sizeof before) == 0);
    CHECK(mv_verifier_load(verifier, list, count, &culprit) == MV_OK && culprit == NULL);
    mv_verifier_destroy(verifier);
    mv_verifier_destroy(other);
}

/* Everything that allocates, in one go; the first failure ends it. */
static mv_status
use_everything(mv_verifier_kind kind, const float *responses)
{
    const mv_verifier_config config = config_of(kind, MV_VIEW_TOPK, 2);
    const mv_query_config query_config = {MODELS, FEATURES, INFINITY, 0};
    const mv_shape shape = {MODELS, QUERIES, OUTPUTS};
    float out[COUNT], lower[FEATURES], upper[FEATURES];
    mv_verifier *verifier = NULL;
    mv_verifier *copy = NULL;
    mv_query_optimizer *optimizer = NULL;
    double loss;
    for (size_t i = 0; i < FEATURES; i++) {
        lower[i] = -100.0f;
        upper[i] = 100.0f;
    }
    mv_status status = mv_view_forward(config.view, shape, responses, out);
    status = status ? status : mv_view_backward(config.view, shape, responses, responses, out);
    status = status ? status : mv_verifier_create(&config, &verifier);
    status = status ? status : mv_verifier_standardize(verifier, 1, responses);
    if (kind == MV_VERIFIER_MATCHED) {
        status = status ? status : mv_verifier_fit_matched(verifier, responses, 3, responses + 3 * FEATURES, 0.2, 0.01);
    }
    status = status ? status : mv_verifier_step(verifier, MODELS, responses, roles, &plain, out, &loss);
    status = status ? status : mv_verifier_copy(verifier, &copy);
    status = status ? status : mv_verifier_scores(copy, MODELS, responses, out);
    status = status ? status : mv_query_optimizer_create(&query_config, responses, lower, upper, &optimizer);
    status = status ? status : mv_query_optimizer_update(optimizer, responses, 0.1, out);
    mv_query_optimizer_destroy(optimizer);
    mv_verifier_destroy(copy);
    mv_verifier_destroy(verifier);
    return status;
}

static void
test_every_allocation_may_fail(void)
{
    float responses[COUNT];
    fill(responses, COUNT, 9);
    for (int kind = MV_VERIFIER_MLP; kind <= MV_VERIFIER_MATCHED; kind++) {
        long n = 0;
        mv_status status;
        do {
            mv_test_fail_allocation(++n);
            status = use_everything((mv_verifier_kind)kind, responses);
            CHECK(status == MV_OK || status == MV_ERROR_MEMORY);
        } while (status == MV_ERROR_MEMORY && n < 1000);
        mv_test_fail_allocation(0);
        CHECK(status == MV_OK);
        CHECK(n > 20); /* the loop did meet the allocations */
    }
}

static void
test_a_failed_step_leaves_the_handle_usable(void)
{
    float responses[COUNT];
    float scores[MODELS];
    double loss;
    fill(responses, COUNT, 10);
    const mv_verifier_config config = config_of(MV_VERIFIER_MLP, MV_VIEW_IDENTITY, 0);
    mv_verifier *verifier = NULL;
    CHECK(mv_verifier_create(&config, &verifier) == MV_OK);
    mv_test_fail_allocation(1);
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &loss) == MV_ERROR_MEMORY);
    mv_test_fail_allocation(0);
    CHECK(mv_verifier_get_steps(verifier) == 0);
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &loss) == MV_OK);
    mv_test_fail_allocation(1); /* the steady state does not allocate */
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &loss) == MV_OK);
    CHECK(mv_verifier_scores(verifier, MODELS, responses, scores) == MV_OK);
    mv_test_fail_allocation(0);
    mv_verifier_destroy(verifier);
}

int
main(void)
{
    test_views_are_parsed();
    test_every_status_has_a_text();
    test_impossible_sizes_are_refused();
    test_gradients_equal_finite_differences();
    test_a_copy_is_independent_and_equal();
    test_kernels_equal_plain_sums();
    test_queries_stay_within_their_limits();
    test_loading_is_all_or_nothing();
    test_every_allocation_may_fail();
    test_a_failed_step_leaves_the_handle_usable();
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
