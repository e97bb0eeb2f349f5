/* A libFuzzer target for the C core: the bytes choose a view, a verifier, options and numbers, special ones among them;
 * every public function is called on them. What counts is that no sanitizer speaks and that scores lie in [0, 1]. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/metav.h"

enum { MOST = 6 * 4 * 5 };

typedef struct input {
    const uint8_t *bytes;
    size_t size, at;
} input;

static unsigned
next(input *in, unsigned below)
{
    const uint8_t byte = in->at < in->size ? in->bytes[in->at] : 0;
    in->at++;
    return byte % below;
}

static float
next_float(input *in)
{
    static const float special[] = {0.0f, 1.0f, -1.0f, 1e-45f, 3e38f, -3e38f, 1e30f, 0.5f};
    uint32_t bits = 0;
    const unsigned kind = next(in, 16);
    if (kind < 8) {
        return special[kind];
    }
    for (int i = 0; i < 4 && kind == 15; i++) { /* any bits: NaN, infinity, denormals */
        bits = bits << 8 | next(in, 256);
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return kind == 15 ? value : (float)next(in, 256) / 64.0f - 2.0f;
}

static void
fill(input *in, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = next_float(in);
    }
}

static mv_view
next_view(input *in)
{
    static const char *const texts[] = {"identity", "identity_round(2)", "logprob", "round(3)", "topk(2)",
                                        "label",    "relative",          "tempered"};
    char text[24] = {0};
    mv_view view = {0};
    if (next(in, 8) == 7) {
        for (size_t i = 0; i + 1 < sizeof text; i++) {
            text[i] = (char)next(in, 256);
        }
    }
    else {
        strcpy(text, texts[next(in, sizeof texts / sizeof *texts)]);
    }
    (void)mv_view_parse(text, &view);
    return view;
}

static mv_step_options
next_options(input *in)
{
    mv_step_options options = {.learning_rate = 1e-2, .owner = 1.0, .positive = 1.0, .negative = 1.0, .update = true};
    options.mix = next(in, 4) / 3.0;
    options.noise = next(in, 4) / 3.0;
    options.dropout = next(in, 4) / 4.0;
    if (next(in, 8) == 7) {
        double *const fields[] = {&options.learning_rate, &options.owner,        &options.positive, &options.negative,
                                  &options.mix,           &options.weight_decay, &options.noise,    &options.dropout};
        *fields[next(in, 8)] = (double)next_float(in);
    }
    options.update = next(in, 4) != 3;
    return options;
}

/* Loads the parameters of `from` with one thing changed. */
static void
reload(input *in, const mv_verifier *from, mv_verifier *to)
{
    mv_parameter list[MV_MAX_PARAMETERS];
    const char *culprit;
    size_t count = mv_verifier_parameters(from, list);
    mv_parameter *changed = list + next(in, (unsigned)count);
    switch (next(in, 5)) {
    case 0:
        changed->name = "no such parameter";
        break;
    case 1:
        changed->rows--;
        break;
    case 2:
        changed->dimensions = 3 - changed->dimensions;
        break;
    case 3:
        count--;
        break;
    default:
        break;
    }
    (void)mv_verifier_load(to, list, count, &culprit);
}

static void
use_verifier(input *in, mv_verifier *verifier, mv_shape shape, const float *responses)
{
    float out[MOST], scores[6];
    uint8_t roles[6];
    double loss;
    mv_verifier *copy = NULL;
    for (size_t i = 0; i < shape.models; i++) {
        roles[i] = (uint8_t)(next(in, 16) == 15 ? 77 : next(in, 3));
    }
    if (next(in, 2)) {
        (void)mv_verifier_standardize(verifier, shape.models, responses);
    }
    (void)mv_verifier_fit_closed_form(verifier, responses, shape.models - 1, responses + shape.queries * shape.outputs,
                                      next(in, 5) / 4.0, next(in, 4) / 8.0);
    for (unsigned steps = next(in, 4); steps > 0; steps--) {
        const mv_step_options options = next_options(in);
        (void)mv_verifier_step(verifier, shape.models, responses, roles, &options, next(in, 2) ? out : NULL, &loss);
    }
    if (mv_verifier_copy(verifier, &copy) == MV_OK) {
        reload(in, verifier, copy);
    }
    (void)mv_verifier_logits(verifier, shape.models, responses, out);
    if (mv_verifier_scores(verifier, shape.models, responses, scores) == MV_OK) {
        for (size_t i = 0; i < shape.models; i++) {
            if (!(scores[i] >= 0.0f && scores[i] <= 1.0f)) {
                abort();
            }
        }
    }
    mv_verifier_destroy(copy);
}

static void
use_queries(input *in, mv_shape shape, const float *responses)
{
    float lower[20], upper[20], queries[MOST];
    const size_t features = shape.queries * shape.outputs;
    memcpy(queries, responses, shape.models * features * sizeof *queries);
    const mv_query_config config = {shape.models, features, (double)next_float(in), (int)next(in, 256)};
    mv_query_optimizer *optimizer = NULL;
    for (size_t i = 0; i < features; i++) {
        lower[i] = next(in, 8) == 7 ? next_float(in) : -3.0f;
        upper[i] = next(in, 8) == 7 ? next_float(in) : 3.0f;
    }
    if (mv_query_optimizer_create(&config, responses, lower, upper, &optimizer) == MV_OK) {
        for (unsigned steps = next(in, 4); steps > 0; steps--) {
            if (mv_query_optimizer_update(optimizer, responses, (double)next_float(in), queries) != MV_OK) {
                continue;
            }
            for (size_t i = 0; i < shape.models * features; i++) {
                if (!(queries[i] >= lower[i % features] && queries[i] <= upper[i % features])) {
                    abort();
                }
            }
        }
    }
    mv_query_optimizer_destroy(optimizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size, 0};
    const char *names[MV_MAX_KINDS];
    const mv_shape shape = {1 + next(&in, 6), 1 + next(&in, 4), 1 + next(&in, 5)};
    const mv_verifier_config config = {
        .kind = mv_kind_find(names[next(&in, (unsigned)mv_kind_list(names))]),
        .queries = shape.queries,
        .outputs = shape.outputs,
        .hidden = 1 + next(&in, 4),
        .view = next_view(&in),
        .seed = next(&in, 4),
    };
    float responses[MOST], out[MOST];
    mv_verifier *verifier = NULL;
    fill(&in, responses, shape.models * shape.queries * shape.outputs);
    (void)mv_view_forward(config.view, shape, responses, out);
    (void)mv_view_backward(config.view, shape, responses, responses, out);
    if (mv_verifier_create(&config, &verifier) == MV_OK) {
        use_verifier(&in, verifier, shape, responses);
    }
    mv_verifier_destroy(verifier);
    use_queries(&in, shape, responses);
    return 0;
}

#ifdef METAV_FUZZ_FILES
/* Without libFuzzer: runs the files that are named. */
#include <stdio.h>

int
main(int count, char **paths)
{
    int failed = 0;
    for (int i = 1; i < count; i++) {
        uint8_t data[4096];
        FILE *file = fopen(paths[i], "rb");
        if (!file) {
            failed++;
            continue;
        }
        const size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        (void)LLVMFuzzerTestOneInput(data, size);
    }
    printf("%d passed, %d failed\n", count - 1 - failed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
#endif
