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

struct segue_foreign {
	const char *name;   /* with its article */
	const char *advice; /* what to do with it */
	/* What files begin with: these bytes, or where there are none, what this says. */
	const char *magic;
	size_t size;
	bool (*begins)(const uint8_t *bytes, size_t size);
};

/*
 * What a file is that does not begin as the source's own do; NULL: it is not known. `bytes` are the
 * first of the file, all of a shorter one.
 */
const struct segue_foreign *segue_foreign_of(const uint8_t *bytes, size_t size);

#endif
