/*
 * Whether bytes are valid UTF-8: names and messages that leave the process must be.
 */
#ifndef SEGUE_CORE_UTF8_H
#define SEGUE_CORE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bytes of the character that begins at text[0] (1 to 4), or 0 if none does: overlong forms,
 * surrogates, values above U+10FFFF and sequences cut short by the end are none.
 */
static inline size_t segue_utf8_next(const char *text, size_t size)
{
	const unsigned char *byte = (const unsigned char *)text;
	unsigned char low = 0x80, high = 0xbf;
	size_t length;

	if (size == 0)
		return 0;
	if (byte[0] < 0x80)
		return 1;
	if (byte[0] < 0xc2 || byte[0] > 0xf4)
		return 0;
	length = byte[0] < 0xe0 ? 2 : byte[0] < 0xf0 ? 3 : 4;
	if (length > size)
		return 0;
	if (byte[0] == 0xe0)
		low = 0xa0;
	else if (byte[0] == 0xed)
		high = 0x9f;
	else if (byte[0] == 0xf0)
		low = 0x90;
	else if (byte[0] == 0xf4)
		high = 0x8f;
	if (byte[1] < low || byte[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if (byte[i] < 0x80 || byte[i] > 0xbf)
			return 0;
	return length;
}

static inline bool segue_utf8_valid(const char *text, size_t size)
{
	while (size > 0) {
		size_t length = segue_utf8_next(text, size);

		if (length == 0)
			return false;
		text += length;
		size -= length;
	}
	return true;
}

#endif
