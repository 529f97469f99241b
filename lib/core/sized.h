/*
 * Structs that programs and the library give to one another by their size, so that later versions
 * can have more in them: what the library takes begins with it, what it gives has it beside it.
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

/*
 * Gives one to the caller, whose struct has `size` bytes, and this version's `known`: as much as
 * fits; what is not known here becomes 0.
 */
void segue_sized_give(const void *from, size_t known, void *to, size_t size);

#endif
