/* Inside of a verifier: what its kinds (mv_mlp.c, mv_local.c, mv_matched.c) and the handle (mv_verifier.c) share. */
#ifndef MV_VERIFIER_H
#define MV_VERIFIER_H

#include "metav.h"
#include "mv_gemm.h"
#include "mv_memory.h"
#include "mv_view.h"

#include <stdatomic.h>

/* Scratch of one call with M models, carved from the handle's arena, or from one of its own while another thread has that.
 * N queries, K outputs, D = N * K features. */
typedef struct mv_workspace {
    size_t threads;         /* that the call may use: so many have scratch of their own below */
    float *z;               /* (M, D) standardised features; `matched` subtracts its mean in place */
    float *z_gradient;      /* (M, D) d loss / d z, or the caller's response gradient: see gradient_scale */
    float *logits;          /* (M, units) */
    float *logits_gradient; /* (M, units) */
    float *hidden;          /* (M, hidden_width) */
    float *hidden_gradient; /* (M, hidden_width) */
    double *carried;        /* (M, 2) two numbers of each model that forward leaves to backward */
    float *dropout_factor;  /* (M, N) 0 or 1 / (1 - p) */
    float *mix_share;       /* (M) weight of the negative mixed into a model, 0 for none */
    size_t *mix_partner;    /* (M) that negative's index */
    double *view_scratch;   /* (threads, mv_view_scratch(K)) */
    bool *finite;           /* (threads) whether all that each thread read was finite */
    float *gradient;        /* (gradient_count) of the parameters that backward does not update as it goes */
    float *product_scratch; /* of mv_gemm_run_backward */
    /* (D) or NULL. Usually backward writes d loss / d z, and the step turns it into the response gradient afterwards.
     * Where that is one multiplication by 1 / scale, a kind with fuses_scale is asked to do it on the way: z_gradient
     * then is the caller's memory, and what belongs there is d loss / d z * gradient_scale. */
    const float *gradient_scale;
    bool has_arena; /* of the handle */
    mv_arena own;
} mv_workspace;

/* What a kind of verifier is. A kind is one file that fills this, and a row in the table of mv_verifier.c. */
struct mv_kind {
    const char *name;
    /* What callers ask about it, by mv_kind_get_traits; `closed_form` is whether fit_closed_form is there. */
    bool preferred;
    bool pairs_with_owner;
    /* Each query has a logit of its own, and a score is the mean of theirs; else a model has one logit. */
    bool unit_per_query;
    /* backward heeds gradient_scale of the workspace. */
    bool fuses_scale;

    /* Names and shapes of its parameters, at most MV_MAX_PARAMETERS - 2, without data; returns how many. One with
     * free_columns has as many columns as were loaded or fitted last: 0 here. */
    size_t (*describe)(const mv_verifier_config *config, mv_parameter *list);
    /* Completes that list with the places of the data, and the columns that are free. */
    void (*locate)(const mv_verifier *self, mv_parameter *list);
    /* Number of trainable parameters, which lie in one block; false if it does not fit. */
    bool (*count)(const mv_verifier_config *config, size_t *count);
    void (*initialize)(mv_verifier *self);
    /* Columns of `hidden` in the workspace. */
    size_t (*hidden_width)(const mv_verifier *self);
    /* Floats of `gradient` in the workspace. */
    size_t (*gradient_count)(const mv_verifier *self);
    /* logits from z */
    void (*forward)(mv_verifier *self, mv_workspace *work, size_t models);
    /* After forward on the same workspace, from logits_gradient: fills z_gradient if with_input, and updates the
     * parameters unless adam is NULL. */
    void (*backward)(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input);

    /* The rest is NULL where a kind has no closed form and keeps nothing in `extra`. */

    /* mv_verifier_fit_closed_form on arguments that have been checked. */
    mv_status (*fit_closed_form)(mv_verifier *self, const float *owner, size_t models, const float *negatives,
                                 double shrinkage, double floor);
    /* Creates `extra`; MV_ERROR_MEMORY leaves what destroy can free. */
    mv_status (*create)(mv_verifier *self);
    void (*destroy)(mv_verifier *self);
    /* Copies it to a handle that has been created. */
    mv_status (*copy)(const mv_verifier *self, mv_verifier *copy);
    /* Is the handle ready to score and to step? */
    mv_status (*check)(const mv_verifier *self);
    /* Before parameters that have passed all checks are loaded: makes room for so many free columns. */
    mv_status (*prepare_load)(mv_verifier *self, size_t free_columns);
};

/* A parameter of one or of two dimensions, without data. */
static inline mv_parameter
mv_vector(const char *name, size_t length)
{
    return (mv_parameter){.name = name, .dimensions = 1, .rows = length, .columns = 1};
}

static inline mv_parameter
mv_matrix(const char *name, size_t rows, size_t columns)
{
    return (mv_parameter){.name = name, .dimensions = 2, .rows = rows, .columns = columns};
}

struct mv_verifier {
    mv_verifier_config config;
    const mv_kind *kind;
    const mv_kernels *kernels;
    uint64_t steps;         /* updates so far: the counter of the augmentation */
    uint64_t adam_steps;    /* the same since Adam began anew */
    size_t features;        /* D */
    size_t units;           /* logits of a model: N for a kind with unit_per_query, else 1 */
    size_t trainable_count; /* floats of the three blocks that follow */
    float *parameters, *first_moment, *second_moment;
    float *shift;         /* (D) */
    float *scale;         /* (K) */
    float *inverse_scale; /* (D) 1 / scale, once for every feature */
    void *extra;          /* what the kind keeps besides its parameters */
    mv_arena arena;
    atomic_bool arena_taken; /* by one call; those beside it have memory of their own */
};

/* features = D and the number of trainable parameters; MV_ERROR_KIND or MV_ERROR_SIZE. */
mv_status mv_verifier_check_sizes(const mv_verifier_config *config, size_t *features, size_t *trainable_count);

/* Sets up a zeroed workspace for `models`; MV_ERROR_MEMORY or MV_ERROR_SIZE. */
mv_status mv_workspace_prepare(mv_verifier *self, size_t models, mv_workspace *work);

/* Gives back what prepare took, whether it succeeded or was never called. */
void mv_workspace_release(mv_verifier *self, mv_workspace *work);

/* z (M, D) of raw responses; MV_ERROR_RESPONSES. */
mv_status mv_verifier_features(const mv_verifier *self, size_t models, const float *responses, float *z,
                               mv_workspace *work);

/* Adam on `count` parameters from number `start` on. */
void mv_verifier_update(mv_verifier *self, const mv_adam_step *adam, size_t start, size_t count, const float *gradient);

/* To be called when scale has changed. */
void mv_verifier_invert_scale(mv_verifier *self);

/* Stable log(1 + exp(x)) and 1 / (1 + exp(-x)). */
double mv_softplus(double x);
double mv_sigmoid(double x);

#endif
