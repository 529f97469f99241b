/* Random bytes. */
#include "os/random.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

void segue_random(void *out, size_t size)
{
	uint8_t *at = out;

	while (size > 0) {
		ssize_t got = getrandom(at, size, 0);
		if (got < 0 && errno != EINTR)
			abort(); /* no kernel that we run on refuses this */
		if (got > 0) {
			at += got;
			size -= (size_t)got;
		}
	}
}
