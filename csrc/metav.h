/* metav: the C core of the meta-verifier and of the fingerprint's update. Plain C11, no Python.
 *
 * Words: M models, N queries, K outputs per query, D = N*K. Every tensor is float32, dense and row-major; `responses`
 * has shape (M, N, K). Sums are accumulated in double wherever that costs nothing.
 *
 * Rules: a function that can fail returns an mv_status, and if it fails, its outputs and its handle are as they were.
 * There are two exceptions: mv_verifier_load sets *culprit; and mv_query_optimizer_update with MV_ERROR_GRADIENT has
 * moved the queries whose gradients are finite, and only the others, with their moments, are as they were. No function
 * keeps a pointer of the caller. Different handles may be used from different threads at once. One handle serves many
 * threads while all of them only read it (the functions that say so), or one thread that changes it. What the process
 * shares are the chosen instruction set and the pool of threads, both below. A child of fork may go on with handles that
 * were read at that moment; one that another thread was changing is half changed.
 */
#ifndef METAV_H
#define METAV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Results -------------------------------------------------------------------------------------------------------- */

typedef enum mv_status {
    MV_OK = 0,
    MV_ERROR_MEMORY,             /* an allocation failed */
    MV_ERROR_SIZE,               /* a size is zero, or a product of sizes does not fit the address space */
    MV_ERROR_KIND,               /* unknown verifier kind */
    MV_ERROR_VIEW_NAME,          /* a view's text is not in the list below */
    MV_ERROR_VIEW_PARAMETER,     /* the number in the view's parentheses is out of range */
    MV_ERROR_VIEW_OUTPUTS,       /* the view needs K >= 2 */
    MV_ERROR_RESPONSES,          /* responses hold NaN or infinity */
    MV_ERROR_OWNER_RESPONSES,    /* the owner's responses hold NaN or infinity */
    MV_ERROR_NEGATIVE_RESPONSES, /* the negatives' responses hold NaN or infinity */
    MV_ERROR_GRADIENT,           /* a gradient holds NaN or infinity */
    MV_ERROR_LOSS,               /* logits or loss overflowed: responses far outside the standardised range */
    MV_ERROR_ROLES,              /* a role is none of 0, 1, 2 */
    MV_ERROR_OPTION,             /* a number among the options is out of its range */
    MV_ERROR_NO_CLOSED_FORM,     /* mv_verifier_fit_closed_form on a kind without one */
    MV_ERROR_NOT_FITTED,         /* a `matched` verifier was used before it was fitted or loaded */
    MV_ERROR_FEW_NEGATIVES,      /* mv_verifier_fit_closed_form needs two negatives */
    MV_ERROR_NO_CONTRAST,        /* the owner answers exactly like the mean negative */
    MV_ERROR_PARAMETER_NAME,     /* a parameter that this kind does not have, or the same one twice */
    MV_ERROR_PARAMETER_MISSING,  /* a parameter of this kind was not given */
    MV_ERROR_PARAMETER_SHAPE,    /* a parameter of another shape */
    MV_ERROR_PARAMETER_VALUE,    /* a parameter with NaN or infinity, or a scale or precision that is not positive */
    MV_ERROR_BOUNDS,             /* bounds are not finite, or lower > upper */
    MV_ERROR_NATURAL,            /* natural queries are not finite, or outside their bounds */
    MV_ERROR_ISA,                /* an instruction set that is unknown, or that this processor does not have */
    MV_STATUS_COUNT
} mv_status;

/* One plain sentence for a status, for logs and for languages without a table of their own. */
const char *mv_status_text(mv_status status);

/* Processor ------------------------------------------------------------------------------------------------------ */

enum { MV_MAX_ISAS = 4, MV_MAX_THREADS = 256 };

/* Fills `names` with the instruction sets that can be used here, best first; returns how many. They are among "avx512",
 * "avx2", "neon", "generic". */
size_t mv_isa_list(const char *names[MV_MAX_ISAS]);

/* Chooses one, NULL for the best. Handles that exist keep theirs. Results of different sets differ by rounding. */
mv_status mv_set_isa(const char *name);
const char *mv_get_isa(void);

/* CPUs that affinity and control group leave to this process, at least 1. */
size_t mv_cpu_count(void);

/* Threads of one call, the caller's own included: 1 ... MV_MAX_THREADS, initially mv_cpu_count().
 * Small work is done by fewer. Results do not depend on the number, bit for bit. */
mv_status mv_set_threads(size_t threads);
size_t mv_get_threads(void);

/* Ends the pool's threads; the next large call starts them again. Not while another thread is in a call. */
void mv_pool_stop(void);

/* Views ---------------------------------------------------------------------------------------------------------- */

/* A view makes the answers of different models comparable; it maps each row r of K outputs to K features f. All but
 * `relative` and `tempered` read a row by itself.
 *
 *   identity           f = r
 *   identity_round(d)  f = r rounded to d decimals, 0 <= d <= 8; straight-through gradient
 *   logprob            f = log max(p, 1e-5)
 *   round(d)           f = log max(p', 0.5 * 10^-d), p' = p rounded to d decimals, 0 <= d <= 8; the gradient is that of
 *                      log max(p, 0.5 * 10^-d)
 *   topk(k)            the k >= 1 largest p stay (ties: lower index first), the others share the remaining mass
 *                      equally, then as logprob; the gradient holds the top set fixed
 *   label              f = one-hot of the largest r (ties: lower index); the gradient is that of softmax(3 log p)
 *   relative           f = C / max(s, 1e-6), C = log p - its mean over the row's K classes, s = the root mean square of C
 *                      over all N * K entries of the model: f is the same at every temperature t, p^t / sum(p^t)
 *   tempered           f = q^(1/4), q = p^t / sum(p^t), the temperature t > 0 such that the mean over the model's N rows of
 *                      the largest q of a row is 1/K + 0.65 (1 - 1/K): it, too, is the same at every temperature, and
 *                      tells most where a model is in doubt, whatever it is sure of
 *
 * All but the identities need K >= 2. There p is r / sum(r) where a model answers probabilities and softmax(r) where it
 * does not, so that logits, log-probabilities and probabilities of one model give the same features. A model answers
 * probabilities if in each of its N rows every entry is >= 0 and the sum is within 1 +- min(1e-3 + 0.005 K, 0.5): the
 * slack lets answers rounded to two decimals pass. Gradients include the normalisation, and are zero where max() is at
 * its floor.
 *
 * These two need another floor for p, since a temperature moves entries across any: 1e-5 is a gap of 11.5 between two
 * logits, which a gap of 4 passes when it is tripled. Logits have no floor, C being r - its mean over the row. Answered
 * probabilities below 1e-30 count as 1e-30, near the least that float32 holds; their gradient is zero. Probabilities that
 * were rounded to zero thus lie far out: for those, take another view. A model that answers every query with equal
 * probabilities has f = 0; below s = 1e-6, s is taken for constant in the gradient. For `tempered`, t is at most
 * 64 / max(s, 1e-6): a model whose classes tie too often has no larger one, and t is then taken for constant.
 */
typedef struct mv_view_kind mv_view_kind;

typedef struct mv_view {
    const mv_view_kind *kind; /* from mv_view_parse */
    int parameter;            /* d or k; 0 where the view has none */
} mv_view;

typedef struct mv_view_traits {
    const char *name;
    const char *parameter; /* "d" or "k" above; NULL where the view takes none */
    bool reads_classes;    /* takes answers for a classifier's: all but the identities */
    bool reads_labels;     /* reads nothing but the most likely class: label */
} mv_view_traits;

enum { MV_MAX_VIEWS = 32 };

/* Fills `list` with all views; returns how many. */
size_t mv_view_list(mv_view_traits list[MV_MAX_VIEWS]);

typedef struct mv_shape {
    size_t models, queries, outputs;
} mv_shape;

/* Reads a view's text, e.g. "topk(3)", into *view. */
mv_status mv_view_parse(const char *text, mv_view *view);

/* features (M, N, K) of responses (M, N, K). The two may not overlap. MV_ERROR_RESPONSES on NaN or infinity. */
mv_status mv_view_forward(mv_view view, mv_shape shape, const float *responses, float *features);

/* response_gradient (M, N, K) from feature_gradient (M, N, K); no overlap. MV_ERROR_RESPONSES, MV_ERROR_GRADIENT. */
mv_status mv_view_backward(mv_view view, mv_shape shape, const float *responses, const float *feature_gradient,
                           float *response_gradient);

/* Verifiers ------------------------------------------------------------------------------------------------------ */

/* A verifier is view -> standardise -> logit; its score is sigmoid(logit). With z = (f - shift) / scale:
 *
 *   mlp      (MetaV, arXiv 2201.07391)  logit = weight2 . relu(weight1^T z + bias1) + bias2
 *            weight1 (D, hidden), bias1 (hidden), weight2 (hidden), bias2 (1); He initialisation
 *   local    (LiteGuard, ICLR 2026)     logit_n = weight_n . z_n + bias_n; the score is mean_n sigmoid(logit_n), and
 *            each query's unit has a loss of its own: a model's loss is mean_n bce(logit_n)
 *            weight (N, K), bias (N); small normal initialisation
 *   matched  x = z - mean; logit = gain * cosine + bias, where
 *            cosine = filter . x / (sqrt(x^T C^-1 x) + 1e-6), C^-1 = diag(precision) - factor factor^T
 *            mean, precision, filter (N, K), factor (D, R), gain (1), bias (1); only gain and bias are trained
 *
 * All have shift (N, K), initially 0, and scale (K), initially 1.
 */
typedef struct mv_kind mv_kind;

enum { MV_MAX_KINDS = 16 };

/* The kind of this name; NULL if there is none. */
const mv_kind *mv_kind_find(const char *name);
const char *mv_kind_get_name(const mv_kind *kind);
/* Fills `names` with all kinds; returns how many. */
size_t mv_kind_list(const char *names[MV_MAX_KINDS]);

typedef struct mv_kind_traits {
    bool closed_form;      /* fitted by mv_verifier_fit_closed_form, from the owner's and the negatives' responses */
    bool preferred;        /* where it is close to the best of several, candidates of this kind alone decide */
    bool pairs_with_owner; /* may also read how far a response lies from the owner's: then K counts both */
} mv_kind_traits;

mv_kind_traits mv_kind_get_traits(const mv_kind *kind);

enum { MV_ROLE_NEGATIVE = 0, MV_ROLE_POSITIVE = 1, MV_ROLE_OWNER = 2, MV_ROLE_COUNT = 3 };

typedef struct mv_verifier_config {
    const mv_kind *kind; /* NULL is MV_ERROR_KIND */
    size_t queries, outputs;
    size_t hidden; /* used by mlp only, >= 1 */
    mv_view view;
    uint64_t seed; /* of the initialisation and of the augmentation */
} mv_verifier_config;

typedef struct mv_verifier mv_verifier;

mv_status mv_verifier_create(const mv_verifier_config *config, mv_verifier **verifier);
/* Adam's state and the step counter included. Only reads. */
mv_status mv_verifier_copy(const mv_verifier *verifier, mv_verifier **copy);
void mv_verifier_destroy(mv_verifier *verifier); /* NULL is fine */

const mv_verifier_config *mv_verifier_get_config(const mv_verifier *verifier);
uint64_t mv_verifier_get_steps(const mv_verifier *verifier); /* updates so far */

/* Sets shift and scale from responses (M, N, K), M >= 1: shift is the mean of the features over models; scale_k is the
 * root mean square of f - shift over models and queries, at least 1e-3 times the same over all outputs, plus 1e-6. */
mv_status mv_verifier_standardize(mv_verifier *verifier, size_t models, const float *responses);

/* Closed form of `matched` from the owner's (N, K) and M >= 2 negatives' (M, N, K) responses. With z_i the standardised
 * negatives, mean and var theirs, s = shrinkage in (0, 1], floor >= 0:
 *   C = diag(d) + U U^T, d = s var + floor mean(var) + 1e-9, U = sqrt((1 - s) / M) (z - mean)^T of shape (D, M),
 *   C^-1 = diag(1/d) - G G^T, G = diag(1/d) U L^-T, L L^T = I + U^T diag(1/d) U (Cholesky, M x M, double),
 *   filter = C^-1 v / sqrt(v^T C^-1 v), v = z_owner - mean.
 * Leaves gain and bias as they are (initially 10 and -3). */
mv_status mv_verifier_fit_closed_form(mv_verifier *verifier, const float *owner, size_t models, const float *negatives,
                                      double shrinkage, double floor);

typedef struct mv_step_options {
    double learning_rate;             /* >= 0 */
    double owner, positive, negative; /* weights a_F, a_P, a_N of the three terms, >= 0 */
    double weight_decay;              /* decoupled (AdamW), >= 0 */
    double mix;                       /* in [0, 1] */
    double noise;                     /* standard deviation, >= 0 */
    double dropout;                   /* in [0, 1) */
    bool update;                      /* false: loss and gradient only, the handle does not change */
} mv_step_options;

/* One joint step on responses (M, N, K) with roles (M).
 *
 * loss = owner * mean over owner rows + positive * mean over positive rows + negative * mean over negative rows of
 * bce(logit, target), targets 1, 1, 0; a class without rows contributes nothing.
 *
 * Augmentation, on z, in this order:
 *   mix      each owner or positive row is, with chance 1/2, replaced by (1 - u) z_i + u z_j, u uniform in [0, mix],
 *            j a random negative row; the gradient flows to both
 *   noise    z += noise * e, e the scaled sum of four uniform numbers: mean 0, variance 1, bell-shaped
 *   dropout  for each model and query, with chance p its K features become 0; the others are divided by 1 - p
 * It depends on the handle's seed and on its number of updates only: equal states give equal augmentation.
 *
 * Writes the loss, and d loss / d responses (M, N, K) unless `gradient` is NULL; `gradient` may not overlap
 * `responses`. With update, Adam (0.9, 0.999, 1e-8, bias-corrected, decoupled weight decay as torch.optim.AdamW) on the
 * parameters. */
mv_status mv_verifier_step(mv_verifier *verifier, size_t models, const float *responses, const uint8_t *roles,
                           const mv_step_options *options, float *gradient, double *loss);

/* logits (M) of responses (M, N, K); for `local` that of the mean score, clamped to [1e-7, 1 - 1e-7]. Only reads. */
mv_status mv_verifier_logits(mv_verifier *verifier, size_t models, const float *responses, float *logits);

/* scores (M) in [0, 1] of responses (M, N, K). Only reads. */
mv_status mv_verifier_scores(mv_verifier *verifier, size_t models, const float *responses, float *scores);

/* A named tensor of one or two dimensions: (rows) or (rows, columns). */
typedef struct mv_parameter {
    const char *name;
    int dimensions;
    size_t rows, columns; /* columns is 1 where dimensions is 1 */
    const float *data;
    /* Rules for what is loaded; in a list given to mv_verifier_load they are not read. */
    bool free_columns;     /* any number of columns will do; one parameter of a kind at most */
    bool must_be_positive; /* every number > 0 */
} mv_parameter;

enum { MV_MAX_PARAMETERS = 8 };

/* Fills `list` with the parameters that a verifier of this config has, without data, and *count; 0 columns where they
 * are free. The view does not matter. MV_ERROR_KIND, MV_ERROR_SIZE. */
mv_status mv_kind_parameters(const mv_verifier_config *config, mv_parameter list[MV_MAX_PARAMETERS], size_t *count);

/* Fills `list` with views of the handle's own memory, valid until its next change; returns how many. Only reads. */
size_t mv_verifier_parameters(const mv_verifier *verifier, mv_parameter list[MV_MAX_PARAMETERS]);

/* Copies all parameters from `list`, which must name each one once. Adam
 * starts anew, the number of updates stays. *culprit becomes the name at fault, or NULL if there is none. */
mv_status mv_verifier_load(mv_verifier *verifier, const mv_parameter *list, size_t count, const char **culprit);

/* Queries -------------------------------------------------------------------------------------------------------- */

/* Adam on the fingerprint, then the projection. Adam moves a query with the learning rate times each feature's range
 * (upper - lower), and it is clamped to
 *   [max(lower, natural - radius * range), min(upper, natural + radius * range)].
 * Without levels it moves the caller's queries, which begin as the natural ones. With levels it moves a continuous
 * master copy, which begins there too, and what is written is the nearest of `levels` equally spaced values from lower
 * to upper, one further inwards if that one lies outside the clamp interval; if then none lies inside, the clamped
 * value itself. A feature with lower == upper is frozen. */
typedef struct mv_query_config {
    size_t queries, features;
    double radius; /* >= 0 in units of the range; INFINITY for none */
    int levels;    /* 2 ... 65536; 0 for none */
} mv_query_config;

typedef struct mv_query_optimizer mv_query_optimizer;

/* natural (queries, features), lower and upper (features). */
mv_status mv_query_optimizer_create(const mv_query_config *config, const float *natural, const float *lower,
                                    const float *upper, mv_query_optimizer **optimizer);
void mv_query_optimizer_destroy(mv_query_optimizer *optimizer); /* NULL is fine */

/* One step with `gradient` (queries, features) on `queries`, which without levels are read, too; NaN there becomes the
 * least value allowed. learning_rate is finite and >= 0. MV_ERROR_GRADIENT if a gradient holds NaN or infinity. */
mv_status mv_query_optimizer_update(mv_query_optimizer *optimizer, const float *gradient, double learning_rate,
                                    float *queries);

#ifdef __cplusplus
}
#endif

#endif
