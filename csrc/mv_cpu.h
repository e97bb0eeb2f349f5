/* The kernels of this processor; its public side is in metav.h. */
#ifndef MV_CPU_H
#define MV_CPU_H

#include "mv_kernels.h"

/* The table in use: the one that mv_set_isa chose, else the best. */
const mv_kernels *mv_kernels_get(void);

#endif
