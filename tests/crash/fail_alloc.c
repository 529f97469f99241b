/* Allocations that fail: fail_alloc.h has the contract. */
#include "fail_alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* What is in place of malloc() and the others in the C library. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

static struct fail_alloc_panel *panel;
static _Atomic int64_t left;

void fail_alloc_use(struct fail_alloc_panel *used)
{
	panel = used;
}

int64_t fail_alloc_left(void)
{
	return left;
}

static int fails(size_t size)
{
	struct fail_alloc_panel *used = panel;

	if (!used || size < used->least)
		return 0;
	uint64_t call = ++used->calls;
	if (call < used->first || call > used->last)
		return 0;
	used->failed++;
	errno = ENOMEM;
	return 1;
}

static void *counted(void *block)
{
	left += block != NULL;
	return block;
}

EXPORT void *malloc(size_t size)
{
	return fails(size) ? NULL : counted(__libc_malloc(size));
}

EXPORT void *calloc(size_t count, size_t size)
{
	return fails(count * size) ? NULL : counted(__libc_calloc(count, size));
}

EXPORT void *realloc(void *block, size_t size)
{
	if (!block)
		return malloc(size);
	if (fails(size))
		return NULL;
	void *grown = __libc_realloc(block, size);
	left -= !grown && size == 0;
	return grown;
}

EXPORT void *memalign(size_t alignment, size_t size);
EXPORT void *memalign(size_t alignment, size_t size)
{
	return fails(size) ? NULL : counted(__libc_memalign(alignment, size));
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t size)
{
	int before = errno;
	void *block = memalign(alignment, size);

	errno = before;
	if (!block)
		return ENOMEM;
	*out = block;
	return 0;
}

EXPORT void free(void *block)
{
	left -= block != NULL;
	__libc_free(block);
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv(FAIL_ALLOC_PANEL);
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	void *map = mmap(NULL, sizeof(*panel), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		panel = map;
}

__attribute__((destructor)) static void end(void)
{
	struct fail_alloc_panel *used = panel;

	if (!used)
		return;
	uint64_t slot = used->ends++;
	if (slot < FAIL_ALLOC_ENDS)
		used->left[slot] = left;
}
