/*
 * How much work something is, counted, not timed: basic blocks run by code that was built with
 * -fsanitize-coverage=trace-pc. What grows with the square of its input shows, on any machine.
 */
#ifndef SEGUE_TEST_WORK_H
#define SEGUE_TEST_WORK_H

#include <stdint.h>

/* Blocks of counted code that this thread has run so far. */
uint64_t segue_work(void);

#endif
