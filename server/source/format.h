/* What a source says of the files that it reads. */
#ifndef SEGUE_SOURCE_FORMAT_H
#define SEGUE_SOURCE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct segue_file_format {
	const char *name; /* before "file" */
	/* Whether a file's first bytes are those of the format. */
	bool (*begins)(const uint8_t *bytes, size_t size);
	bool plain; /* read where it lies: never compressed */
	/*
	 * A hash of what the file holds, as far as it is looked at; NULL: what a file holds is
	 * checked where it is read. SEGUE_ESOURCE: it cannot be read.
	 */
	int (*sample)(int fd, uint64_t size, uint64_t hash[2]);
};

#endif
