/*
 * The source that reads arrays where they lie in files (core/array_index.h, docs/format.md).
 *
 * The client has made the index; opening checks that every array lies inside of its file, and looks
 * at samples of all files. A sequence is arithmetic: nothing is read when it is admitted, and its
 * windows are read straight to where they go, unless they are small. There are no damaged records
 * to be passed over: what cannot be read, or has changed, is an error.
 */
#ifndef SEGUE_SOURCE_ARRAYS_ARRAYS_H
#define SEGUE_SOURCE_ARRAYS_ARRAYS_H

#include "source/source.h"

extern const struct segue_source_driver segue_source_arrays;

#endif
