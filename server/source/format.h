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
};

#endif
