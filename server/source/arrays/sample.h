/*
 * What of a file is looked at to tell whether it is the one that it was: 64 blocks of 4 KiB, at
 * places that follow from its size, the first and the last among them; of a file of up to 256 KiB,
 * all of it.
 */
#ifndef SEGUE_SOURCE_ARRAYS_SAMPLE_H
#define SEGUE_SOURCE_ARRAYS_SAMPLE_H

#include <stdint.h>

#define SEGUE_SAMPLE_BLOCK  4096
#define SEGUE_SAMPLE_BLOCKS 64

/* Their hash (XXH3-128). SEGUE_ESOURCE: they cannot be read; SEGUE_ECHANGED: it is shorter. */
int segue_sample_file(int fd, uint64_t size, uint64_t hash[2]);

#endif
