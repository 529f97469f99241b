/* Structs between programs and the library, by their size. */
#include "core/sized.h"

#include <stdint.h>
#include <string.h>

#include "core/error.h"

/* More than any of them will have: what is larger was not set. */
#define SIZE_MOST 4096

int segue_sized_take(const char *name, const void *from, size_t known, void *to)
{
	size_t size;

	if (!from)
		return segue_fail(SEGUE_EINVAL, "struct %s is missing (NULL)", name);
	memcpy(&size, from, sizeof(size));
	if (size < sizeof(size) || size > SIZE_MOST)
		return segue_fail(SEGUE_EINVAL,
			"size of struct %s is %zu: set it to sizeof(struct %s), here %zu", name,
			size, name, known);
	for (size_t i = known; i < size; i++)
		if (((const uint8_t *)from)[i])
			return segue_fail(SEGUE_EINVAL,
				"struct %s has something at byte %zu that this version of segue "
				"(%s) does not know",
				name, i, SEGUE_VERSION_STRING);
	memset(to, 0, known);
	memcpy(to, from, size < known ? size : known);
	memcpy(to, &known, sizeof(known));
	return 0;
}

void segue_sized_give(const void *from, size_t known, void *to, size_t size)
{
	size_t part = size < known ? size : known;

	memcpy(to, from, part);
	memset((char *)to + part, 0, size - part);
}
