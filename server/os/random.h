/* Random bytes. */
#ifndef SEGUE_OS_RANDOM_H
#define SEGUE_OS_RANDOM_H

#include <stddef.h>

/* From the kernel, which never refuses them; may wait a little at boot. */
void segue_random(void *out, size_t size);

#endif
