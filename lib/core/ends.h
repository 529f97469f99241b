/*
 * Where a stream's input ends: after so many epochs in all, and, each time that the stream was
 * opened with more, after so many more.
 *
 *	made with epochs=1       [1]
 *	opened with epochs=3     [1, 3]
 *	opened with epochs=None  [1, 3, None]: endless from there
 *
 * The list only grows, at its end. What lies between two ends is a stretch of the input: each lane
 * ends it by its tail rule, and begins the next with full rows. Pure.
 */
#ifndef SEGUE_CORE_ENDS_H
#define SEGUE_CORE_ENDS_H

#include <stdbool.h>
#include <stdint.h>

#define SEGUE_ENDS_MAX 64

struct segue_ends {
	uint32_t count;                  /* >= 1 */
	uint64_t epochs[SEGUE_ENDS_MAX]; /* totals, rising; the last may be 0: endless */
};

/* The list of a stream that has not grown. For initializers: of one that has grown. */
#define SEGUE_ENDS(...)                                                                            \
	((struct segue_ends){.count = sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),        \
		.epochs = {__VA_ARGS__}})

/* SEGUE_EINVAL: none, too many, not rising. */
int segue_ends_check(const struct segue_ends *ends);
/* All epochs that there are by now; UINT64_MAX: endless, so many that nothing reaches the last. */
uint64_t segue_ends_last(const struct segue_ends *ends);
/* The first end beyond `epoch`; UINT64_MAX: there is none. */
uint64_t segue_ends_after(const struct segue_ends *ends, uint64_t epoch);
/* How many of the list it takes to get beyond `epoch`; all where it is beyond the last. */
uint32_t segue_ends_until(const struct segue_ends *ends, uint64_t epoch);
/* Whether the input ends, or ended, after so many epochs: 0 is endless. */
bool segue_ends_have(const struct segue_ends *ends, uint64_t epochs);
/* Whether the first `count` entries of both are there, and the same. */
bool segue_ends_agree(const struct segue_ends *a, const struct segue_ends *b, uint32_t count);
/*
 * Asks for `epochs` in all (0: endless): 1, an end was added; 0, that is where the list ends;
 * SEGUE_ESPEC, it is beyond that already, or cannot grow once more: the detail says what to do.
 */
int segue_ends_grow(struct segue_ends *ends, uint64_t epochs);

#define SEGUE_ENDS_TEXT 256
/* "1, 3, None"; of a long list its ends. Returns `text`. */
const char *segue_ends_print(const struct segue_ends *ends, char text[SEGUE_ENDS_TEXT]);
/* As people write an option: "3", "None". Returns `text`. */
const char *segue_epochs_print(uint64_t epochs, char text[24]);

#endif
