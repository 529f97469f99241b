/*
 * Files that a source does not read, and another call does: told by their first bytes, so that the
 * error can name it. One row a kind, for all sources.
 */
#ifndef SEGUE_SOURCE_FOREIGN_H
#define SEGUE_SOURCE_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* So many first bytes tell all of them. */
#define SEGUE_FOREIGN_BEGIN 128

/* Of what form its arrays are, if segue.Arrays reads such files. */
enum segue_foreign_arrays {
	SEGUE_FOREIGN_NO_ARRAYS,
	SEGUE_FOREIGN_NPY,
	SEGUE_FOREIGN_NPZ,
	SEGUE_FOREIGN_WAV
};

struct segue_foreign {
	const char *name;   /* with its article */
	const char *advice; /* what to do with it */
	/* What files begin with: these bytes, or where there are none, what this says. */
	const char *magic;
	size_t size;
	bool (*begins)(const uint8_t *bytes, size_t size);
	enum segue_foreign_arrays arrays;
};

/*
 * What a file is that does not begin as the source's own do; NULL: it is not known. `bytes` are the
 * first of the file, all of a shorter one.
 */
const struct segue_foreign *segue_foreign_of(const uint8_t *bytes, size_t size);

#endif
