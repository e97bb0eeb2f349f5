/* Answers as probabilities, and the gradients of what is made of them. */
#include "mv_view_kind.h"

#include <math.h>

/* A row's sum may differ from 1 by this, plus this per output, but never by more than the cap. */
#define SUM_SLACK 1e-3
#define SUM_SLACK_PER_OUTPUT 0.005
#define SUM_SLACK_CAP 0.5

static double
sum_of(const float *r, size_t outputs)
{
    double sum = 0.0;
    for (size_t j = 0; j < outputs; j++) {
        sum += r[j];
    }
    return sum;
}

bool
mv_are_probabilities(const float *responses, size_t queries, size_t outputs)
{
    const double slack = fmin(SUM_SLACK + SUM_SLACK_PER_OUTPUT * (double)outputs, SUM_SLACK_CAP);
    for (size_t n = 0; n < queries; n++) { /* (N, K) */
        const float *r = responses + n * outputs;
        for (size_t j = 0; j < outputs; j++) {
            if (r[j] < 0.0f) {
                return false;
            }
        }
        if (fabs(sum_of(r, outputs) - 1.0) > slack) {
            return false;
        }
    }
    return true;
}

size_t
mv_largest(const float *r, size_t outputs)
{
    size_t best = 0;
    for (size_t j = 1; j < outputs; j++) {
        best = r[j] > r[best] ? j : best;
    }
    return best;
}

void
mv_find_probabilities(mv_row *row)
{
    const size_t outputs = row->outputs;
    if (row->is_distribution) {
        row->normalizer = sum_of(row->r, outputs);
        for (size_t j = 0; j < outputs; j++) {
            row->p[j] = row->r[j] / row->normalizer;
        }
        return;
    }
    const float maximum = row->r[mv_largest(row->r, outputs)];
    double sum = 0.0;
    for (size_t j = 0; j < outputs; j++) {
        row->p[j] = expf(row->r[j] - maximum);
        sum += row->p[j];
    }
    for (size_t j = 0; j < outputs; j++) {
        row->p[j] /= sum;
    }
    row->normalizer = maximum + log(sum);
}

void
mv_log_gradient(const mv_row *row, double floor, float *response_gradient)
{
    double total = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        if (row->p[j] > floor) {
            total += row->gradient[j];
        }
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const double own = row->p[j] > floor ? row->gradient[j] : 0.0;
        const double value = row->is_distribution
                                 ? (row->p[j] > floor ? own / row->r[j] : 0.0) - total / row->normalizer
                                 : own - row->p[j] * total;
        response_gradient[j] = (float)value;
    }
}

void
mv_probability_gradient(const mv_row *row, float *response_gradient)
{
    double mean = 0.0;
    for (size_t j = 0; j < row->outputs; j++) {
        mean += row->p[j] * row->gradient[j];
    }
    for (size_t j = 0; j < row->outputs; j++) {
        const double centred = row->gradient[j] - mean;
        response_gradient[j] = (float)(row->is_distribution ? centred / row->normalizer : row->p[j] * centred);
    }
}

void
mv_clamped_gradient(mv_row *row, const float *feature_gradient, double floor, float *response_gradient)
{
    mv_find_probabilities(row);
    for (size_t j = 0; j < row->outputs; j++) {
        row->gradient[j] = feature_gradient[j];
    }
    mv_log_gradient(row, floor, response_gradient);
}
