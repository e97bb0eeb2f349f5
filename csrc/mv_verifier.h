/* Inside of a verifier: what the kinds (mv_mlp.c, mv_local.c, mv_matched.c) share with the handle (mv_verifier.c). */
#ifndef MV_VERIFIER_H
#define MV_VERIFIER_H

#include "metav.h"
#include "mv_gemm.h"
#include "mv_memory.h"
#include "mv_view.h"

/* Scratch of one call, carved from the handle's arena for M models. A kind gives each model `units` logits: one, or one
 * per query. */
typedef struct mv_workspace {
    size_t threads;    /* at most; what there is of scratch */
    float *z;          /* (M, D) standardised features; `matched` centres them in place */
    float *z_gradient; /* (M, D) */
    /* (D) by which a kind that scales_gradient multiplies z_gradient, which is then the caller's gradient; or NULL */
    const float *gradient_scale;
    float *logits; /* (M, units) */
    float *logits_gradient;
    float *hidden; /* (M, width) */
    float *hidden_gradient;
    double *inner;   /* (M, 2): two numbers of a model that backward needs again */
    float *keep;     /* (M, N) factor of dropout: 0 or 1 / (1 - p) */
    float *share;    /* (M) weight of the mixed-in negative */
    size_t *partner; /* (M) its index */
    double *rows;    /* (threads, mv_view_scratch) */
    bool *finite;    /* (threads) what each found */
    float *gradient; /* (gradient_count) of the parameters that backward does not update while it goes */
    float *scratch;  /* of the matrix products */
} mv_workspace;

/* What a kind is: sizes and names of its parameters, initialisation, forward, backward. */
struct mv_kind {
    const char *name;
    bool unit_per_query;
    bool scales_gradient; /* backward heeds gradient_scale */
    /* Columns of the hidden layer that the scratch must hold. */
    size_t (*width)(const mv_verifier *self);
    /* Number of trainable parameters; false if it does not fit. */
    bool (*count)(const mv_verifier_config *config, size_t *count);
    void (*initialize)(mv_verifier *self);
    /* Names and places of the kind's parameters; returns how many. */
    size_t (*list)(const mv_verifier *self, mv_parameter *list);
    /* logits from z */
    void (*forward)(mv_verifier *self, mv_workspace *work, size_t models);
    /* Floats of work->gradient. */
    size_t (*gradient_count)(const mv_verifier *self);
    /* Updates the parameters unless adam is NULL; z_gradient if with_input. After forward on the same workspace. */
    void (*backward)(mv_verifier *self, mv_workspace *work, size_t models, const mv_adam_step *adam, bool with_input);
    /* The rest is NULL where a kind keeps nothing in `extra`. Creates it; MV_ERROR_MEMORY leaves what destroy can free. */
    mv_status (*create)(mv_verifier *self);
    void (*destroy)(mv_verifier *self);
    /* Copies it to a handle that has been created. */
    mv_status (*copy)(const mv_verifier *self, mv_verifier *copy);
    /* Is the handle ready to score and to step? */
    mv_status (*check)(const mv_verifier *self);
    /* Makes room for the parameters that are about to be loaded, where their size may differ. */
    mv_status (*resize)(mv_verifier *self, const mv_parameter *list, size_t count);
};

struct mv_verifier {
    mv_verifier_config config;
    const mv_kind *kind;
    const mv_kernels *kernels;
    uint64_t steps;      /* updates so far: the counter of the augmentation */
    uint64_t adam_steps; /* the same since Adam began anew */
    size_t features;     /* D */
    size_t units;
    size_t count;                       /* of trainable parameters */
    float *parameters, *first, *second; /* (count) */
    float *shift;                       /* (D) */
    float *scale;                       /* (K) */
    float *inverse;                     /* (D) 1 / scale, once for every feature */
    void *extra;                        /* what the kind keeps besides its parameters */
    mv_arena arena;
};

/* Sets up the workspace for `models`; MV_ERROR_MEMORY or MV_ERROR_SIZE. */
mv_status mv_workspace_prepare(mv_verifier *self, size_t models, mv_workspace *work);

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
