/* Reading and replacing a verifier's parameters by name. */
#include "mv_finite.h"
#include "mv_verifier.h"

#include <string.h>

/* The kind's own, then shift and scale, without data. */
static size_t
describe(const mv_verifier_config *config, mv_parameter *list)
{
    const size_t own = config->kind->describe(config, list);
    list[own] = mv_matrix("shift", config->queries, config->outputs);
    list[own + 1] = mv_vector("scale", config->outputs);
    list[own + 1].must_be_positive = true;
    return own + 2;
}

mv_status
mv_kind_parameters(const mv_verifier_config *config, mv_parameter list[MV_MAX_PARAMETERS], size_t *count)
{
    size_t features;
    size_t trainable_count;
    const mv_status status = mv_verifier_check_sizes(config, &features, &trainable_count);
    if (!status) {
        *count = describe(config, list);
    }
    return status;
}

size_t
mv_verifier_parameters(const mv_verifier *self, mv_parameter list[MV_MAX_PARAMETERS])
{
    const size_t count = describe(&self->config, list);
    self->kind->locate(self, list);
    list[count - 2].data = self->shift;
    list[count - 1].data = self->scale;
    return count;
}

/* The one of this name; NULL if there is none, or a second one. */
static const mv_parameter *
find_parameter(const mv_parameter *list, size_t count, const char *name)
{
    const mv_parameter *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) {
            if (found) {
                return NULL;
            }
            found = list + i;
        }
    }
    return found;
}

static bool
is_positive(const mv_parameter *given)
{
    for (size_t i = 0; i < given->rows * given->columns; i++) {
        if (!(given->data[i] > 0.0f)) {
            return false;
        }
    }
    return true;
}

static mv_status
check_parameter(const mv_parameter *own, const mv_parameter *given)
{
    size_t size;
    if (given->dimensions != own->dimensions || given->rows != own->rows ||
        (given->columns != own->columns && !own->free_columns) || !mv_multiply(given->rows, given->columns, &size)) {
        return MV_ERROR_PARAMETER_SHAPE;
    }
    if (!mv_all_finite(given->data, size) || (own->must_be_positive && !is_positive(given))) {
        return MV_ERROR_PARAMETER_VALUE;
    }
    return MV_OK;
}

static mv_status
check_list(const mv_parameter *own, size_t own_count, const mv_parameter *list, size_t count, const char **culprit)
{
    for (size_t i = 0; i < count; i++) {
        *culprit = list[i].name;
        const mv_parameter *target = find_parameter(own, own_count, list[i].name);
        if (!target || !find_parameter(list, count, list[i].name)) {
            return MV_ERROR_PARAMETER_NAME;
        }
        const mv_status status = check_parameter(target, list + i);
        if (status) {
            return status;
        }
    }
    for (size_t i = 0; i < own_count; i++) {
        if (!find_parameter(list, count, own[i].name)) {
            *culprit = own[i].name;
            return MV_ERROR_PARAMETER_MISSING;
        }
    }
    *culprit = NULL;
    return MV_OK;
}

/* Columns that the list, which has passed its checks, gives to the parameter with free columns; 0 if there is none. */
static size_t
find_free_columns(const mv_parameter *own, size_t own_count, const mv_parameter *list, size_t count)
{
    for (size_t i = 0; i < own_count; i++) {
        if (own[i].free_columns) {
            return find_parameter(list, count, own[i].name)->columns;
        }
    }
    return 0;
}

mv_status
mv_verifier_load(mv_verifier *self, const mv_parameter *list, size_t count, const char **culprit)
{
    mv_parameter own[MV_MAX_PARAMETERS];
    size_t own_count = mv_verifier_parameters(self, own);
    mv_status status = check_list(own, own_count, list, count, culprit);
    if (status) {
        return status;
    }
    if (self->kind->prepare_load) {
        status = self->kind->prepare_load(self, find_free_columns(own, own_count, list, count));
        if (status) {
            return status;
        }
        own_count = mv_verifier_parameters(self, own);
    }
    for (size_t i = 0; i < own_count; i++) {
        const size_t size = own[i].rows * own[i].columns;
        if (size) {
            /* The list is read-only for callers; the memory is the handle's own. */
            memcpy((float *)own[i].data, find_parameter(list, count, own[i].name)->data, size * sizeof *own[i].data);
        }
    }
    mv_verifier_invert_scale(self);
    memset(self->first_moment, 0, self->trainable_count * sizeof *self->first_moment);
    memset(self->second_moment, 0, self->trainable_count * sizeof *self->second_moment);
    self->adam_steps = 0;
    return MV_OK;
}
