/*
 * Structs of the caller that begin with their size, so that later versions can have more in them.
 * Pure.
 */
#ifndef SEGUE_CORE_SIZED_H
#define SEGUE_CORE_SIZED_H

#include <stddef.h>

/*
 * Copies one, of which this version knows `known` bytes; to->size becomes `known`. What is behind
 * the caller's end is 0 in the copy: not asked for. What lies beyond what is known must be 0.
 * SEGUE_EINVAL names the struct: NULL, a size that was not set, something that is not known here.
 */
int segue_sized_take(const char *name, const void *from, size_t known, void *to);

#endif
