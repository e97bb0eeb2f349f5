/* Reading and replacing a verifier's parameters by name. */
#include "mv_finite.h"
#include "mv_verifier.h"

#include <string.h>

size_t
mv_verifier_parameters(const mv_verifier *self, mv_parameter list[MV_MAX_PARAMETERS])
{
    const size_t count = self->kind->list(self, list);
    list[count] = (mv_parameter){"shift", 2, self->config.queries, self->config.outputs, self->shift};
    list[count + 1] = (mv_parameter){"scale", 1, self->config.outputs, 1, self->scale};
    return count + 2;
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
    const bool free_columns = strcmp(own->name, "factor") == 0;
    if (given->dimensions != own->dimensions || given->rows != own->rows ||
        (given->columns != own->columns && !free_columns) || !mv_multiply(given->rows, given->columns, &size)) {
        return MV_ERROR_PARAMETER_SHAPE;
    }
    const bool must_be_positive = strcmp(own->name, "scale") == 0 || strcmp(own->name, "precision") == 0;
    if (!mv_all_finite(given->data, size) || (must_be_positive && !is_positive(given))) {
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

mv_status
mv_verifier_load(mv_verifier *self, const mv_parameter *list, size_t count, const char **culprit)
{
    mv_parameter own[MV_MAX_PARAMETERS];
    size_t own_count = mv_verifier_parameters(self, own);
    mv_status status = check_list(own, own_count, list, count, culprit);
    if (status) {
        return status;
    }
    if (self->kind->resize) {
        status = self->kind->resize(self, list, count);
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
    memset(self->first, 0, self->count * sizeof *self->first);
    memset(self->second, 0, self->count * sizeof *self->second);
    self->adam_steps = 0;
    return MV_OK;
}
