/* The C core without Python: laws, refusals, and every allocation failing once. Build with -DMV_TEST_ALLOCATIONS. */
#define _POSIX_C_SOURCE 200809L /* fork */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "../../csrc/metav.h"
#include "../../csrc/mv_cpu.h"
#include "../../csrc/mv_gemm.h"
#include "../../csrc/mv_memory.h"
#include "../../csrc/mv_pool.h"
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

static mv_view
view_of(const char *text)
{
    mv_view view = {0};
    CHECK(mv_view_parse(text, &view) == MV_OK);
    return view;
}

static mv_verifier_config
config_of(const char *kind, const char *view)
{
    return (mv_verifier_config){mv_kind_find(kind), QUERIES, OUTPUTS, 5, view_of(view), 7};
}

/* A fitted verifier; NULL if something failed. */
static mv_verifier *
make_verifier(const char *kind, const char *view, const float *responses)
{
    const mv_verifier_config config = config_of(kind, view);
    mv_verifier *verifier = NULL;
    if (mv_verifier_create(&config, &verifier) != MV_OK) {
        return NULL;
    }
    mv_status status = mv_verifier_standardize(verifier, MODELS, responses);
    if (!status && mv_kind_get_traits(mv_kind_find(kind)).closed_form) {
        status = mv_verifier_fit_closed_form(verifier, responses, 3, responses + 3 * FEATURES, 0.2, 0.01);
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
        int parameter;
    } cases[] = {
        {"identity", MV_OK, 0},
        {"identity_round(3)", MV_OK, 3},
        {"logprob", MV_OK, 0},
        {"round(0)", MV_OK, 0},
        {"topk(12)", MV_OK, 12},
        {"label", MV_OK, 0},
        {"relative", MV_OK, 0},
        {"tempered", MV_OK, 0},
        {"", MV_ERROR_VIEW_NAME, 0},
        {"(", MV_ERROR_VIEW_NAME, 0},
        {"round", MV_ERROR_VIEW_NAME, 0},
        {"round(", MV_ERROR_VIEW_NAME, 0},
        {"round()", MV_ERROR_VIEW_NAME, 0},
        {"round(1", MV_ERROR_VIEW_NAME, 0},
        {"round(1)x", MV_ERROR_VIEW_NAME, 0},
        {"label(1)", MV_ERROR_VIEW_NAME, 0},
        {"labels", MV_ERROR_VIEW_NAME, 0},
        {"topk(0)", MV_ERROR_VIEW_PARAMETER, 0},
        {"round(9)", MV_ERROR_VIEW_PARAMETER, 0},
        {"topk(123456789012345678901234567890)", MV_ERROR_VIEW_PARAMETER, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mv_view view = {0};
        CHECK(mv_view_parse(cases[i].text, &view) == cases[i].status);
        if (cases[i].status != MV_OK) {
            CHECK(view.kind == NULL);
        }
        else {
            CHECK(view.kind != NULL && view.parameter == cases[i].parameter);
        }
    }
}

static void
test_kinds_are_found_by_their_names(void)
{
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    CHECK(kinds >= 3);
    for (size_t k = 0; k < kinds; k++) {
        CHECK(mv_kind_find(names[k]) != NULL && strcmp(mv_kind_get_name(mv_kind_find(names[k])), names[k]) == 0);
    }
    CHECK(mv_kind_find("") == NULL && mv_kind_find("MLP") == NULL);
    const mv_verifier_config config = {NULL, QUERIES, OUTPUTS, 5, view_of("identity"), 7};
    mv_verifier *verifier = NULL;
    CHECK(mv_verifier_create(&config, &verifier) == MV_ERROR_KIND && verifier == NULL);
    mv_view view = {0};
    float out[COUNT] = {0};
    CHECK(mv_view_forward(view, (mv_shape){1, QUERIES, OUTPUTS}, out, out) == MV_ERROR_VIEW_NAME);
}

static void
test_the_table_of_views_names_what_is_parsed(void)
{
    mv_view_traits views[MV_MAX_VIEWS];
    const size_t count = mv_view_list(views);
    CHECK(count >= 6);
    for (size_t i = 0; i < count; i++) {
        char text[64];
        mv_view view = {0};
        CHECK(!views[i].reads_labels || views[i].reads_classes);
        snprintf(text, sizeof text, views[i].parameter ? "%s(1)" : "%s", views[i].name);
        CHECK(mv_view_parse(text, &view) == MV_OK && view.parameter == (views[i].parameter ? 1 : 0));
        snprintf(text, sizeof text, views[i].parameter ? "%s" : "%s(1)", views[i].name);
        CHECK(mv_view_parse(text, &view) == MV_ERROR_VIEW_NAME);
    }
}

static void
test_parameters_are_described_without_a_verifier(void)
{
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    for (size_t k = 0; k < kinds; k++) {
        mv_parameter own[MV_MAX_PARAMETERS], described[MV_MAX_PARAMETERS];
        mv_verifier_config config = config_of(names[k], "logprob");
        mv_verifier *verifier = NULL;
        size_t count = 0;
        CHECK(mv_verifier_create(&config, &verifier) == MV_OK);
        CHECK(mv_kind_parameters(&config, described, &count) == MV_OK);
        CHECK(count == mv_verifier_parameters(verifier, own));
        for (size_t i = 0; i < count; i++) {
            CHECK(strcmp(own[i].name, described[i].name) == 0 && own[i].dimensions == described[i].dimensions);
            CHECK(own[i].rows == described[i].rows && own[i].columns == described[i].columns);
            CHECK(!described[i].data && (own[i].data || !own[i].columns));
        }
        mv_verifier_destroy(verifier);
        config.queries = 0;
        CHECK(mv_kind_parameters(&config, described, &count) == MV_ERROR_SIZE);
        config.kind = NULL;
        CHECK(mv_kind_parameters(&config, described, &count) == MV_ERROR_KIND);
    }
}

static void
test_a_refused_step_writes_nothing(void)
{
    float responses[COUNT], gradient[COUNT], expected[COUNT];
    fill(responses, COUNT, 9);
    fill(expected, COUNT, 10);
    memcpy(gradient, expected, sizeof gradient);
    mv_verifier *verifier = make_verifier("mlp", "identity", responses);
    mv_step_options options = plain;
    double loss = 7.0;
    options.mix = 2.0;
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &options, gradient, &loss) == MV_ERROR_OPTION);
    responses[0] = NAN;
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, gradient, &loss) == MV_ERROR_RESPONSES);
    for (size_t i = 0; i < COUNT; i++) {
        responses[i] = 3e38f;
    }
    CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, gradient, &loss) == MV_ERROR_LOSS);
    CHECK(loss == 7.0 && memcmp(gradient, expected, sizeof gradient) == 0);
    CHECK(mv_verifier_get_steps(verifier) == 0);
    mv_verifier_destroy(verifier);
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
        mv_verifier_config config = config_of("mlp", "identity");
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
    mv_verifier *verifier = make_verifier("mlp", "identity", responses);
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
test_gradients_equal_finite_differences(const char *view)
{
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    for (size_t k = 0; k < kinds; k++) {
        float responses[COUNT];
        float direction[COUNT];
        float gradient[COUNT];
        fill(responses, COUNT, 3);
        fill(direction, COUNT, 4);
        mv_verifier *verifier = make_verifier(names[k], view, responses);
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
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    for (size_t k = 0; k < kinds; k++) {
        float responses[COUNT];
        fill(responses, COUNT, 5);
        mv_verifier *verifier = make_verifier(names[k], "label", responses);
        mv_verifier *copy = NULL;
        double own_loss, copy_loss;
        CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &own_loss) == MV_OK);
        CHECK(mv_verifier_copy(verifier, &copy) == MV_OK);
        CHECK(mv_verifier_step(verifier, MODELS, responses, roles, &plain, NULL, &own_loss) == MV_OK);
        CHECK(mv_verifier_get_steps(copy) == 1);
        CHECK(mv_verifier_step(copy, MODELS, responses, roles, &plain, NULL, &copy_loss) == MV_OK);
        CHECK(own_loss == copy_loss);
        mv_verifier_destroy(copy);
        mv_verifier_destroy(verifier);
    }
    mv_verifier_destroy(NULL);
    mv_query_optimizer_destroy(NULL);
}

/* The largest distance of two products from sums in double, on the scale of their rounding error. */
static double
distance(size_t rows, size_t columns, size_t length, const float *a, size_t a_row, size_t a_step, const float *b,
         size_t b_row, size_t b_step, const float *c)
{
    double worst = 0.0;
    for (size_t i = 0; i < rows * columns; i++) {
        double sum = 0.0;
        for (size_t k = 0; k < length; k++) {
            sum += (double)a[i / columns * a_row + k * a_step] * b[i % columns * b_row + k * b_step];
        }
        worst = fmax(worst, fabs(sum - c[i]) / sqrt((double)length));
    }
    return worst;
}

/* The products of a layer of `shape` = rows, inputs, outputs with some threads; fills result with all of them. */
static void
run_products(const size_t shape[3], size_t threads, float *result)
{
    const size_t m = shape[0];
    const size_t k = shape[1];
    const size_t n = shape[2];
    float *x = mv_alloc_floats(m * k + k * n + m * n + k * n);
    float *scratch = mv_alloc_floats(mv_gemm_scratch(threads, m, n));
    float *w = x + m * k;
    float *dy = w + k * n;
    float *second_moment = dy + m * n;
    float *y = result;
    float *dx = y + m * n;
    float *first_moment = dx + m * k;
    const mv_adam_step adam = mv_adam_prepare(1, 0.5, 0.0);
    fill(x, m * k + k * n + m * n, 1);
    memset(second_moment, 0, k * n * sizeof *second_moment);
    memset(first_moment, 0, k * n * sizeof *first_moment);
    mv_gemm_forward(mv_kernels_get(), threads, m, k, n, x, w, y);
    CHECK(distance(m, n, k, x, k, 1, w, 1, n, y) < 3e-6);
    mv_gemm_backward job = {mv_kernels_get(), m, k, n, dy, dx, NULL, NULL, x, w, first_moment, second_moment, scratch};
    mv_gemm_run_backward(&job, threads);
    CHECK(distance(m, k, n, dy, n, 1, w, n, 1, dx) < 3e-6);
    job.dx = NULL;
    job.adam = &adam;
    mv_gemm_run_backward(&job, threads);
    for (size_t i = 0; i < k * n; i++) {
        first_moment[i] *= 10.0f; /* the first moment began at a tenth of the gradient */
    }
    CHECK(distance(k, n, m, x, 1, k, dy, 1, n, first_moment) < 3e-6);
    mv_free(x);
    mv_free(scratch);
}

static void
test_products_equal_plain_sums(void)
{
    static const size_t shapes[][3] = {{1, 1, 1},    {3, 5, 2},       {7, 400, 33}, {2, 1000, 64},
                                       {500, 3, 40}, {4, 9, 800},     {13, 99, 17}, {6, 130, 128},
                                       {1, 97, 130}, {24, 2000, 100}, {12, 96, 32}, {5, 20, 66}};
    const char *names[MV_MAX_ISAS];
    const size_t isas = mv_isa_list(names);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t size = shapes[s][0] * shapes[s][2] + shapes[s][0] * shapes[s][1] + shapes[s][1] * shapes[s][2];
        float *alone = mv_alloc_floats(size);
        float *shared = mv_alloc_floats(size);
        for (size_t i = 0; i < isas; i++) {
            CHECK(mv_set_isa(names[i]) == MV_OK && strcmp(mv_get_isa(), names[i]) == 0);
            run_products(shapes[s], 1, alone);
            for (size_t threads = 2; threads <= 5; threads++) {
                run_products(shapes[s], threads, shared);
                CHECK(memcmp(alone, shared, size * sizeof *alone) == 0);
            }
        }
        mv_free(alone);
        mv_free(shared);
    }
    CHECK(mv_set_isa("mmx") == MV_ERROR_ISA);
    CHECK(mv_set_isa(NULL) == MV_OK);
}

enum { ITEMS = 10000 };

static void
count_items(void *context, size_t start, size_t end, size_t thread)
{
    unsigned char *visits = context;
    (void)thread;
    for (size_t i = start; i < end; i++) {
        visits[i]++;
    }
}

/* A caller that finds the pool taken must do its work alone, not wait. */
static void
share_items(void *context, size_t start, size_t end, size_t thread)
{
    unsigned char *visits = context;
    (void)thread;
    for (size_t i = start; i < end; i++) {
        mv_pool_run(4, 10, count_items, visits + 10 * i);
    }
}

static void
test_the_pool_does_every_item_once(void)
{
    unsigned char *visits = mv_alloc(ITEMS);
    for (size_t threads = 1; threads <= 9; threads++) {
        mv_pool_run(threads, ITEMS, count_items, visits);
        mv_pool_run(threads, 2, count_items, visits);
        mv_pool_run(threads, ITEMS / 10, share_items, visits);
        mv_pool_run(threads, 0, count_items, visits);
        for (size_t i = 0; i < ITEMS; i++) {
            CHECK(visits[i] == (i < 2 ? 3 : 2));
            visits[i] = 0;
        }
        if (threads % 4 == 0) {
            mv_pool_stop();
            mv_pool_stop();
        }
    }
    mv_free(visits);
    CHECK(mv_set_threads(0) == MV_ERROR_OPTION && mv_set_threads(MV_MAX_THREADS + 1) == MV_ERROR_OPTION);
    CHECK(mv_set_threads(3) == MV_OK && mv_get_threads() == 3);
    CHECK(mv_pool_pays(3, 10.0) == 1 && mv_pool_pays(3, 1e12) == 3);
    CHECK(mv_cpu_count() >= 1);
    mv_pool_stop();
}

/* The thread sanitizer and the user emulation of QEMU do not support threads in the child of a fork. */
#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__) && !defined(MV_TEST_WITHOUT_FORK)
#define HAS_FORK 1
static void
test_a_forked_child_starts_its_own_pool(void)
{
    unsigned char *visits = mv_alloc(ITEMS);
    mv_pool_run(3, ITEMS, count_items, visits);
    (void)fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        bool whole = true;
        mv_pool_run(3, ITEMS, count_items, visits);
        for (size_t i = 0; i < ITEMS; i++) {
            whole = whole && visits[i] == 2;
        }
        mv_free(visits);
        mv_pool_stop();
        _exit(whole ? 0 : 1);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    mv_pool_run(3, ITEMS, count_items, visits);
    CHECK(visits[0] == 2 && visits[ITEMS - 1] == 2);
    mv_pool_stop();
    mv_free(visits);
}
#endif

static void
test_queries_stay_within_their_limits(int levels)
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
    memcpy(queries, natural, sizeof queries);
    const mv_query_config config = {N, F, 0.1, levels};
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
    float before[N * F];
    memcpy(before, queries, sizeof before);
    gradient[3] = NAN;
    CHECK(mv_query_optimizer_update(optimizer, gradient, 0.1, queries) == MV_ERROR_GRADIENT);
    CHECK(memcmp(before, queries, F * sizeof *queries) == 0);
    CHECK(memcmp(before, queries, sizeof queries) != 0);
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
    mv_verifier *verifier = make_verifier("matched", "identity", responses);
    mv_verifier *other = make_verifier("matched", "logprob", responses);
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
use_everything(const char *kind, const float *responses)
{
    const mv_verifier_config config = config_of(kind, "topk(2)");
    const mv_query_config query_config = {MODELS, FEATURES, INFINITY, 0};
    const mv_shape shape = {MODELS, QUERIES, OUTPUTS};
    float out[COUNT], lower[FEATURES], upper[FEATURES];
    mv_verifier *verifier = NULL;
    mv_verifier *copy = NULL;
    mv_query_optimizer *optimizer = NULL;
    const char *culprit;
    double loss;
    for (size_t i = 0; i < FEATURES; i++) {
        lower[i] = -100.0f;
        upper[i] = 100.0f;
    }
    mv_status status = mv_view_forward(config.view, shape, responses, out);
    status = status ? status : mv_view_backward(config.view, shape, responses, responses, out);
    status = status ? status : mv_verifier_create(&config, &verifier);
    status = status ? status : mv_verifier_standardize(verifier, 1, responses);
    if (mv_kind_get_traits(config.kind).closed_form) {
        status =
            status ? status : mv_verifier_fit_closed_form(verifier, responses, 3, responses + 3 * FEATURES, 0.2, 0.01);
    }
    status = status ? status : mv_verifier_step(verifier, MODELS, responses, roles, &plain, out, &loss);
    status = status ? status : mv_verifier_copy(verifier, &copy);
    status = status ? status : mv_verifier_scores(copy, MODELS, responses, out);
    status = status ? status : mv_verifier_logits(verifier, MODELS, responses, out);
    if (!status) {
        mv_parameter list[MV_MAX_PARAMETERS];
        status = mv_verifier_load(copy, list, mv_verifier_parameters(verifier, list), &culprit);
    }
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
    const char *names[MV_MAX_KINDS];
    const size_t kinds = mv_kind_list(names);
    for (size_t k = 0; k < kinds; k++) {
        long n = 0;
        mv_status status;
        do {
            mv_test_fail_allocation(++n);
            status = use_everything(names[k], responses);
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
    const mv_verifier_config config = config_of("mlp", "identity");
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
    test_kinds_are_found_by_their_names();
    test_the_table_of_views_names_what_is_parsed();
    test_parameters_are_described_without_a_verifier();
    test_a_refused_step_writes_nothing();
    test_every_status_has_a_text();
    test_impossible_sizes_are_refused();
    test_gradients_equal_finite_differences("logprob");
    test_gradients_equal_finite_differences("relative");
    test_gradients_equal_finite_differences("tempered");
    test_a_copy_is_independent_and_equal();
    test_products_equal_plain_sums();
    test_the_pool_does_every_item_once();
#ifdef HAS_FORK
    test_a_forked_child_starts_its_own_pool();
#endif
    test_queries_stay_within_their_limits(256);
    test_queries_stay_within_their_limits(0);
    test_loading_is_all_or_nothing();
    test_every_allocation_may_fail();
    test_a_failed_step_leaves_the_handle_usable();
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
