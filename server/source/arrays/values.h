/*
 * Values of an array in a file, as a batch has them: dense, in the machine's byte order, of the
 * feature's dtype. What lies so in the file is read straight to its place.
 */
#ifndef SEGUE_SOURCE_ARRAYS_VALUES_H
#define SEGUE_SOURCE_ARRAYS_VALUES_H

#include "core/spec.h"
#include "source/arrays/sums.h"
#include "source/buffers.h"

/* Where arrays are read from. */
struct segue_array_files {
	struct segue_files *files;
	struct segue_sums sums; /* zeroed: reads are not checked */
	struct segue_buffers buffers;
};

/* The file that an array lies in, as a number in files->file. */
size_t segue_array_file(
	const struct segue_array_files *from, const struct segue_array_place *place);

/*
 * Writes values `first` to first + count of an array to `out`: count * field->size bytes, aligned
 * to an element. Values of the array's dtype are values of the field's. SEGUE_ESOURCE,
 * SEGUE_ECHANGED, SEGUE_ENOMEM; SEGUE_EDATA: a bool that is neither 0 nor 1. Any thread.
 */
int segue_array_read(struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, uint64_t first, uint64_t count, void *out);

#endif
