/*
 * Shared-memory segments: made, sized, sealed and mapped by one side, passed to the other as an fd.
 *
 * A segment has no name: a memfd where the kernel can seal one, else shm_open + O_EXCL + immediate
 * unlink (segue_shm_sealable() then is false, and workers of the same user are trusted). Mappings
 * are MADV_DONTFORK. Linux-only calls stay in shm.c.
 */
#ifndef SEGUE_CORE_SHM_H
#define SEGUE_CORE_SHM_H

#include "segue/segue.h"

enum segue_shm_access {
	SEGUE_SHM_READ,  /* the other side may only read: sealed SHRINK|GROW|FUTURE_WRITE|SEAL */
	SEGUE_SHM_WRITE, /* the other side may write: sealed SHRINK|GROW|SEAL */
};

struct segue_shm {
	int fd;      /* CLOEXEC; -1: none */
	size_t size; /* rounded up to pages */
	void *map;   /* read-write mapping of the maker, or the receiver's */
};

/*
 * Makes a zeroed segment of `size` bytes (posix_fallocate: SEGUE_ENOMEM says how much was asked for
 * and what limits it, instead of a SIGBUS later), maps it read-write and populated, seals it for
 * `access`. `label` shows in /proc. The caller owns it (segue_shm_destroy).
 */
int segue_shm_create(
	const char *label, size_t size, enum segue_shm_access access, struct segue_shm *out);

/*
 * Maps a received fd of at least `size` bytes, populated; takes the fd over only on success. Checks
 * the real size and (where segments are sealed) that it cannot shrink: SEGUE_EPROTOCOL. A READ
 * mapping cannot be written through.
 */
int segue_shm_map(int fd, size_t size, enum segue_shm_access access, struct segue_shm *out);

/* A second, read-only mapping of a segment; the caller unmaps it with segue_shm_unmap. */
int segue_shm_view(const struct segue_shm *shm, void **out);
void segue_shm_unmap(void *map, size_t size);

/*
 * An fd of the segment through which it can only be read; the caller's. From now on nobody but its
 * maker's user, or root, opens the segment for writing by it. SEGUE_ESYSTEM.
 */
int segue_shm_reader(const struct segue_shm *shm, int *out);

/*
 * Private memory with the bytes of some pages of a mapping, to be put in their place, or unmapped
 * (segue_shm_unmap). SEGUE_ENOMEM.
 */
int segue_shm_copy(const void *pages, size_t size, void **out);
/*
 * Puts the copy in their place, read only: whoever reads there sees the one or the other. It goes
 * with the mapping. SEGUE_ESYSTEM: it was unmapped, and nothing has changed.
 */
int segue_shm_put_copy(void *pages, size_t size, void *copy);

/* Reads through the fd into private memory: no signal can come of it. SEGUE_ESYSTEM. */
int segue_shm_read(const struct segue_shm *shm, uint64_t offset, void *out, size_t size);

/* Unmaps and closes; a zeroed-with-fd=-1 struct is fine. Leaves it so. */
void segue_shm_destroy(struct segue_shm *shm);
#define SEGUE_SHM_NONE ((struct segue_shm){.fd = -1})

/* Bytes that this process's memory cgroup allows; UINT64_MAX: no limit, or it cannot be seen. */
uint64_t segue_shm_memory_limit(void);

/* Whether this kernel seals segments (probed once). */
bool segue_shm_sealable(void);

#endif
