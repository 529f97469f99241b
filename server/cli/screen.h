/* The screen of 'segue top': drawn from a look. Pure. */
#ifndef SEGUE_CLI_SCREEN_H
#define SEGUE_CLI_SCREEN_H

#include "cli/look.h"

struct segue_screen {
	int columns; /* of the terminal; lines are cut there */
	int rows;    /* so many lines at most; 0: as many as there are */
	int first;   /* lanes above this one are scrolled out: from 0 */
	bool colour;
	/* Written: how many lanes can be scrolled out, and how many are to be seen. */
	int last_first, seen;
};

/*
 * Lines, each ended by '\n', malloc'd. Above the table what is wrong, below it what is to be known;
 * where there is no room for all lanes, a line says how many more there are.
 */
char *segue_screen_draw(const struct segue_look *look, struct segue_screen *screen);

#endif
