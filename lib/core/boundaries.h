/*
 * Where classes of lengths begin (bucket_boundaries): sequences of fewer than length[0] steps are
 * of class 0, of length[i - 1] to length[i] - 1 of class i, of more of the last, class `count`. As
 * in TensorFlow's bucket_by_sequence_length. Pure.
 */
#ifndef SEGUE_CORE_BOUNDARIES_H
#define SEGUE_CORE_BOUNDARIES_H

#include <stdint.h>

#include "segue/segue.h"

struct segue_boundaries {
	uint32_t count;                        /* 0: lengths make no difference */
	uint64_t length[SEGUE_BOUNDARIES_MAX]; /* rising, from 1 on */
};

/* For initializers. */
#define SEGUE_BOUNDARIES(...)                                                                      \
	((struct segue_boundaries){.count = sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),  \
		.length = {__VA_ARGS__}})

/* SEGUE_EINVAL: too many, a 0, not rising. */
int segue_boundaries_check(const struct segue_boundaries *boundaries);
/* Class of a sequence of so many steps: boundaries that are no more than that. */
uint32_t segue_boundaries_class(const struct segue_boundaries *boundaries, uint64_t steps);

#define SEGUE_BOUNDARIES_TEXT 128
/* "[10, 20]", "None"; of a long list its begin and end. Returns `text`. */
const char *segue_boundaries_print(
	const struct segue_boundaries *boundaries, char text[SEGUE_BOUNDARIES_TEXT]);

#endif
