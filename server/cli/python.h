/* A program in Python that is written for a person to paste, whatever names files have. */
#ifndef SEGUE_CLI_PYTHON_H
#define SEGUE_CLI_PYTHON_H

#include <stdbool.h>
#include <stddef.h>

/* Begins zeroed; `bytes` is NUL-terminated, and whoever has it frees it. */
struct segue_python {
	char *bytes;
	size_t size;
};

void segue_python_add(struct segue_python *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/*
 * A literal, whatever the bytes are: what comes from a file or its name must not become code. Bytes
 * that are no UTF-8 are as os.fsdecode() has them.
 */
void segue_python_add_literal(struct segue_python *text, const char *bytes, size_t size);
/* Whether they are so many that a pattern is better, and there is one: one directory and ending. */
bool segue_python_is_pattern(const char *const path[], size_t count);
/* That pattern, or else a list of the paths. */
void segue_python_add_paths(struct segue_python *text, const char *const path[], size_t count);

#endif
