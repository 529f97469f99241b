/*
 * A list of differences as one text, for one error.
 */
#include "core/differences.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void segue_differ(struct segue_differences *list, const char *format, ...)
{
	size_t room = sizeof(list->text) - list->used;
	size_t lead = list->count ? 2 : 0;
	va_list arguments;
	int length;

	list->count++;
	if (lead >= room || list->left_out) {
		list->left_out++;
		return;
	}
	memcpy(list->text + list->used, "; ", lead);
	va_start(arguments, format);
	length = vsnprintf(list->text + list->used + lead, room - lead, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t)length >= room - lead) {
		list->text[list->used] = '\0';
		list->left_out++;
		return;
	}
	list->used += lead + (size_t)length;
}

int segue_differences_fail(const struct segue_differences *list)
{
	if (list->count == 0)
		return 0;
	if (list->left_out)
		return segue_fail(SEGUE_ESPEC, "%s; and %u more", list->text, list->left_out);
	return segue_fail(SEGUE_ESPEC, "%s", list->text);
}
