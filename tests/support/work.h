/* How much work something is, in instructions: what grows with the square shows, on any machine. */
#ifndef SEGUE_TEST_WORK_H
#define SEGUE_TEST_WORK_H

#include <stdint.h>

/* The instructions of fn(arg), which runs in a child step by step: some thousand in a millisecond. */
uint64_t segue_work_of(void (*fn)(void *arg), void *arg);

#endif
