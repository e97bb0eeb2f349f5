/* What the views (mv_view_<name>.c) share with the table that knows them all (mv_view.c). */
#ifndef MV_VIEW_KIND_H
#define MV_VIEW_KIND_H

#include "metav.h"
#include "mv_cpu.h"

/* Probabilities below this count as this. */
#define MV_PROBABILITY_FLOOR 1e-5

/* Decimals that a view may round to, and the largest number that any view may take. */
enum { MV_MAX_DECIMALS = 8, MV_MAX_VIEW_PARAMETER = 1000000000 };

/* One row of K answers on its way through a view. */
typedef struct mv_row {
    int parameter; /* the number in the view's parentheses */
    size_t outputs;
    bool is_distribution; /* the model answers probabilities, not logits; false for views that do not read classes */
    const float *r;       /* (K) the answers */
    double normalizer;    /* sum(r) of probabilities, log sum exp(r) of logits */
    double *p;            /* (K) probabilities */
    double *gradient;     /* (K) d loss / d log p or d loss / d p */
    bool *top;            /* (K) scratch: is it among the largest? */
} mv_row;

/* All rows of one model, (N, K) numbers. */
typedef struct mv_rows {
    const mv_kernels *kernels;
    size_t queries, outputs;
    bool is_distribution; /* as in mv_row */
} mv_rows;

/* What a view is. A view is one file that fills this, and a row in the table of mv_view.c. */
struct mv_view_kind {
    const char *name;
    const char *parameter; /* what texts call the number in its parentheses, e.g. "d"; NULL if it takes none */
    int minimum, maximum;  /* of that number */
    bool reads_classes;    /* answers are a classifier's, one for each of K >= 2 classes */
    bool reads_labels;     /* of them, only the most likely class is read */
    /* f (K) of one row, and its gradient (K) with respect to r, given the one with respect to f */
    void (*features)(mv_row *row, float *f);
    void (*gradient)(mv_row *row, const float *feature_gradient, float *response_gradient);
    /* The same of all rows of a model that answers logits, for views that are faster so; else NULL. */
    void (*logit_features)(const mv_rows *rows, const float *r, float *f);
    void (*logit_gradient)(const mv_rows *rows, const float *r, const float *feature_gradient,
                           float *response_gradient);
    /* All rows of a model, in either form: instead of those above, for views that do not read a row by itself. */
    void (*model_features)(const mv_rows *rows, const float *r, float *f);
    void (*model_gradient)(const mv_rows *rows, const float *r, const float *feature_gradient,
                           float *response_gradient);
};

/* Do all rows of a model (N, K) look like probabilities? metav.h says how near to 1 they must sum. */
bool mv_are_probabilities(const float *responses, size_t queries, size_t outputs);

/* Index of the largest of r (K), the lower one on ties. */
size_t mv_largest(const float *r, size_t outputs);

/* Fills p and the normalizer. */
void mv_find_probabilities(mv_row *row);

/* response_gradient of row->gradient with respect to log max(p, floor). */
void mv_log_gradient(const mv_row *row, double floor, float *response_gradient);

/* response_gradient of row->gradient with respect to p. */
void mv_probability_gradient(const mv_row *row, float *response_gradient);

/* The whole gradient of the view f = log max(p, floor). */
void mv_clamped_gradient(mv_row *row, const float *feature_gradient, double floor, float *response_gradient);

/* Writes u = C / max(s, 1e-6) (N, K), C = log p - its mean over the row's classes, s = the root mean square of C; returns
 * 1 / max(s, 1e-6). */
double mv_unit_logs(const mv_rows *rows, const float *r, float *u);

/* Takes a gradient (N, K) with respect to log p on to the answers r, in place: probabilities or logits. */
void mv_through_logs(const mv_rows *rows, const float *r, float *gradient);

/* fmax without its rules for NaN, which keep it from being inlined. */
static inline double
mv_larger(double a, double b)
{
    return a > b ? a : b;
}

#endif
