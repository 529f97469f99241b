/*
 * The terminal, taken for a screen of one's own: alternate screen, keys without echo. One at a
 * time; given back by segue_terminal_leave(), and while the program is stopped (Ctrl-Z).
 */
#ifndef SEGUE_CLI_TERMINAL_H
#define SEGUE_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum segue_key {
	SEGUE_KEY_NONE,
	SEGUE_KEY_UP,
	SEGUE_KEY_DOWN,
	SEGUE_KEY_PAGE_UP,
	SEGUE_KEY_PAGE_DOWN,
	SEGUE_KEY_HOME,
	SEGUE_KEY_END,
	SEGUE_KEY_RESIZED, /* or it has been away: draw again */
	SEGUE_KEY_QUIT,    /* q, SIGINT, SIGTERM, SIGHUP, or the terminal has gone */
};

/* Whether standard input and output are one. */
bool segue_terminal_is_there(void);
/* SEGUE_ESYSTEM: it is none. */
int segue_terminal_enter(void);
/*
 * Gives it back. If a signal has ended the program, it is ended by that now. Without an enter:
 * nothing.
 */
void segue_terminal_leave(void);
/* 80 x 24 where it does not say. */
void segue_terminal_size(int *columns, int *rows);
/* The next key, waited for up to the deadline (monotonic ns; one that has passed: not at all). */
enum segue_key segue_terminal_key(int64_t deadline_ns);
/* The same without taking it: whether what comes next is QUIT, of those that are there. */
bool segue_terminal_wants_out(void);
/* Shows lines that each end with '\n', at most `rows`, which it has, in place of what is there. */
void segue_terminal_show(const char *lines, int rows);

/* The key that `bytes` begin with, and how many of them it took. Pure. */
enum segue_key segue_terminal_parse(const char *bytes, size_t size, size_t *taken);

#endif
