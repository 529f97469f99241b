/* A model of a disk: disk.h. Also the memory of a run. */
#include "disk.h"

#include <stdio.h>
#include <sys/mman.h>

#include "core/error.h"
#include "source/log/disk.h"

/* ---- Memory ---- */

#define ARENA ((size_t)1 << 30)

static struct {
	uint8_t *at;
	size_t used;
} arena;

struct block {
	size_t size;
};

void *simlog_alloc(size_t align, size_t size)
{
	if (!arena.at)
		arena.at = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	align = align < 64 ? 64 : align;
	size_t at = (arena.used + sizeof(struct block) + align - 1) / align * align;
	if (arena.at == MAP_FAILED || size > ARENA || at + size > ARENA)
		abort();
	memcpy(arena.at + at - sizeof(struct block), &(struct block){size}, sizeof(struct block));
	memset(arena.at + at, 0, size);
	arena.used = at + size;
	return arena.at + at;
}

void *simlog_realloc(void *old, size_t size)
{
	void *new = simlog_alloc(64, size);
	struct block block = {0};

	if (old)
		memcpy(&block, (uint8_t *)old - sizeof(block), sizeof(block));
	if (block.size > 0)
		memcpy(new, old, block.size < size ? block.size : size);
	return new;
}

void simlog_forget_all(void)
{
	arena.used = 0;
}

/* ---- The disk ---- */

#define NAMES  256
#define SECTOR 512u

struct bytes {
	uint8_t *at;
	uint64_t size, room;
};

struct change {
	struct change *next;
	bool cut;
	uint64_t at, size; /* cut: at is the new size */
	uint8_t *bytes;
};

struct node {
	struct bytes cache, disk;
	struct change *first, **last; /* pending */
};

struct name {
	char name[32];
	struct node *node;
};

struct names {
	struct name name[NAMES];
	unsigned count;
};

enum name_change { MAKE, RENAME, REMOVE };

struct pending_name {
	struct pending_name *next;
	enum name_change change;
	char from[32], to[32];
	struct node *node;
};

static struct {
	struct names cache, disk;
	struct pending_name *first, **last;
	uint64_t (*random)(uint64_t below);
	enum simdisk_fault fault;
	uint64_t countdown;
	bool struck;
} disk;

jmp_buf simdisk_killed;

void simdisk_begin(uint64_t (*random)(uint64_t below))
{
	memset(&disk, 0, sizeof(disk));
	disk.last = &disk.first;
	disk.random = random;
}

void simdisk_fault(enum simdisk_fault fault, uint64_t n)
{
	disk.fault = fault;
	disk.countdown = n;
}

bool simdisk_struck(void)
{
	bool struck = disk.struck;

	disk.struck = false;
	return struck;
}

/* What strikes now. */
static enum simdisk_fault due(void)
{
	if (disk.fault == SIMDISK_NONE || --disk.countdown > 0)
		return SIMDISK_NONE;
	enum simdisk_fault fault = disk.fault;
	disk.fault = SIMDISK_NONE;
	disk.struck = true;
	return fault;
}

static void kill_server(void)
{
	longjmp(simdisk_killed, 1);
}

void simdisk_call(void)
{
	/* Others than the disk's own only die. */
	if (disk.fault == SIMDISK_KILL && due() == SIMDISK_KILL)
		kill_server();
}

/* ---- Bytes ---- */

static void resize(struct bytes *bytes, uint64_t size)
{
	if (size > bytes->room) {
		bytes->room = 2 * size;
		bytes->at = simlog_realloc(bytes->at, bytes->room);
	}
	if (size > bytes->size)
		memset(bytes->at + bytes->size, 0, size - bytes->size);
	bytes->size = size;
}

static void put(struct bytes *bytes, uint64_t at, const uint8_t *from, uint64_t size)
{
	if (at + size > bytes->size)
		resize(bytes, at + size);
	memcpy(bytes->at + at, from, size);
}

static void copy(struct bytes *to, const struct bytes *from)
{
	resize(to, 0);
	if (from->size > 0)
		put(to, 0, from->at, from->size);
}

static void add(struct node *node, bool cut, uint64_t at, const void *bytes, uint64_t size)
{
	struct change *change = simlog_alloc(64, sizeof(*change));

	*change = (struct change){.cut = cut, .at = at, .size = size};
	if (cut) {
		resize(&node->cache, at);
	} else {
		change->bytes = simlog_alloc(64, size);
		memcpy(change->bytes, bytes, size);
		put(&node->cache, at, bytes, size);
	}
	*node->last = change;
	node->last = &change->next;
}

static void settle(struct node *node)
{
	node->first = NULL;
	node->last = &node->first;
}

/* A write reaches the disk in part: sectors are there, not there, or garbage. */
static void tear(struct node *node, const struct change *change)
{
	uint64_t kind = disk.random(3), end = change->at + change->size;

	for (uint64_t at = change->at; at < end;) {
		uint64_t next = (at / SECTOR + 1) * SECTOR;
		uint64_t size = (next < end ? next : end) - at;
		uint64_t fate = disk.random(8);

		if (kind == 0 || fate < 3 + kind)
			put(&node->disk, at, change->bytes + (at - change->at), size);
		else if (fate == 7 && at + size > node->disk.size)
			resize(&node->disk, at + size);
		at += size;
	}
}

static void cut_file(struct node *node)
{
	for (struct change *change = node->first; change; change = change->next) {
		uint64_t fate = disk.random(4);

		if (fate == 0)
			continue;
		if (change->cut && (fate > 1))
			resize(&node->disk, change->at);
		else if (!change->cut && fate == 1)
			tear(node, change);
		else if (!change->cut)
			put(&node->disk, change->at, change->bytes, change->size);
	}
	settle(node);
	copy(&node->cache, &node->disk);
}

/* ---- Names ---- */

static struct name *find(struct names *names, const char *name)
{
	for (unsigned i = 0; i < names->count; i++)
		if (strcmp(names->name[i].name, name) == 0)
			return &names->name[i];
	return NULL;
}

static void take_away(struct names *names, const char *name)
{
	struct name *found = find(names, name);

	if (found)
		*found = names->name[--names->count];
}

static void give(struct names *names, const char *name, struct node *node)
{
	take_away(names, name);
	if (names->count == NAMES)
		abort();
	struct name *found = &names->name[names->count++];
	snprintf(found->name, sizeof(found->name), "%s", name);
	found->node = node;
}

static void change_names(struct names *names, const struct pending_name *change)
{
	struct name *found = find(names, change->from);
	struct node *node = found ? found->node : NULL;

	switch (change->change) {
	case MAKE:
		give(names, change->from, change->node);
		break;
	case RENAME:
		if (node) { /* else that it was made is not on disk */
			take_away(names, change->from);
			give(names, change->to, node);
		}
		break;
	case REMOVE:
		take_away(names, change->from);
	}
}

static void change_name(enum name_change kind, const char *from, const char *to, struct node *node)
{
	struct pending_name *change = simlog_alloc(64, sizeof(*change));

	*change = (struct pending_name){.change = kind, .node = node};
	snprintf(change->from, sizeof(change->from), "%s", from);
	snprintf(change->to, sizeof(change->to), "%s", to);
	change_names(&disk.cache, change);
	*disk.last = change;
	disk.last = &change->next;
}

void simdisk_cut_power(void)
{
	for (struct pending_name *change = disk.first; change; change = change->next)
		if (disk.random(2))
			change_names(&disk.disk, change);
	disk.first = NULL;
	disk.last = &disk.first;
	disk.cache = disk.disk;
	for (unsigned i = 0; i < disk.cache.count; i++)
		cut_file(disk.cache.name[i].node);
}

/* ---- What the log calls ---- */

struct segue_log_dir {
	char path[8];
};

struct segue_log_file {
	struct node *node;
};

static int fail(enum simdisk_fault fault, bool full)
{
	if (fault == SIMDISK_KILL)
		kill_server();
	return segue_fail(full && fault == SIMDISK_FULL ? SEGUE_ENOSPACE : SEGUE_ESTORE,
		"a call of the disk has failed");
}

int segue_log_dir_open(const char *path, struct segue_log_dir **out)
{
	(void)path;
	*out = simlog_alloc(64, sizeof(**out));
	strcpy((*out)->path, "log");
	return 0;
}

void segue_log_dir_close(struct segue_log_dir *dir)
{
	(void)dir;
}

const char *segue_log_dir_path(const struct segue_log_dir *dir)
{
	return dir->path;
}

int segue_log_dir_list(
	struct segue_log_dir *dir, int (*visit)(void *arg, const char *name), void *arg)
{
	int rc = 0;

	(void)dir;
	for (unsigned i = 0; !rc && i < disk.cache.count; i++)
		rc = visit(arg, disk.cache.name[i].name);
	return rc;
}

int segue_log_dir_rename(struct segue_log_dir *dir, const char *from, const char *to)
{
	enum simdisk_fault fault = due();

	(void)dir;
	if (fault != SIMDISK_NONE)
		return fail(fault, true);
	change_name(RENAME, from, to, NULL);
	return 0;
}

int segue_log_dir_remove(struct segue_log_dir *dir, const char *name)
{
	enum simdisk_fault fault = due();

	(void)dir;
	if (fault != SIMDISK_NONE)
		return fail(fault, false);
	if (find(&disk.cache, name))
		change_name(REMOVE, name, "", NULL);
	return 0;
}

int segue_log_dir_sync(struct segue_log_dir *dir)
{
	enum simdisk_fault fault = due();

	(void)dir;
	if (fault != SIMDISK_NONE)
		return fail(fault, false);
	disk.disk = disk.cache;
	disk.first = NULL;
	disk.last = &disk.first;
	return 0;
}

int segue_log_file_open(
	struct segue_log_dir *dir, const char *name, bool make, struct segue_log_file **out)
{
	enum simdisk_fault fault = make ? due() : SIMDISK_NONE;
	struct name *found = find(&disk.cache, name);
	struct node *node = found ? found->node : NULL;

	(void)dir;
	if (fault != SIMDISK_NONE)
		return fail(fault, true);
	if (!node && !make)
		return segue_fail(SEGUE_ESTORE, "%s is not there", name);
	if (!node) {
		node = simlog_alloc(64, sizeof(*node));
		settle(node);
		change_name(MAKE, name, "", node);
	} else if (make) {
		add(node, true, 0, NULL, 0);
	}
	*out = simlog_alloc(64, sizeof(**out));
	(*out)->node = node;
	return 0;
}

void segue_log_file_close(struct segue_log_file *file)
{
	(void)file;
}

int segue_log_file_size(struct segue_log_file *file, uint64_t *size)
{
	*size = file->node->cache.size;
	return 0;
}

int segue_log_file_read(struct segue_log_file *file, uint64_t at, void *bytes, size_t size)
{
	const struct bytes *cache = &file->node->cache;

	if (at > cache->size || size > cache->size - at)
		return segue_fail(SEGUE_ESTORE, "it ends before");
	if (size > 0)
		memcpy(bytes, cache->at + at, size);
	return 0;
}

int segue_log_file_write(struct segue_log_file *file, uint64_t at, const void *bytes, size_t size)
{
	enum simdisk_fault fault = due();

	/* A part of it is written, whatever then happens. */
	if (fault != SIMDISK_NONE)
		size = (size_t)disk.random(size);
	if (size > 0)
		add(file->node, false, at, bytes, size);
	return fault != SIMDISK_NONE ? fail(fault, true) : 0;
}

int segue_log_file_cut(struct segue_log_file *file, uint64_t size)
{
	enum simdisk_fault fault = due();

	if (fault != SIMDISK_NONE)
		return fail(fault, false);
	add(file->node, true, size, NULL, 0);
	return 0;
}

int segue_log_file_sync(struct segue_log_file *file)
{
	enum simdisk_fault fault = due();

	if (fault == SIMDISK_KILL)
		kill_server();
	if (fault != SIMDISK_NONE) {
		settle(file->node); /* nobody will write it any more; the cache has it */
		return fail(fault, false);
	}
	for (struct change *change = file->node->first; change; change = change->next) {
		if (change->cut)
			resize(&file->node->disk, change->at);
		else
			put(&file->node->disk, change->at, change->bytes, change->size);
	}
	settle(file->node);
	return 0;
}

int segue_log_file_refresh(struct segue_log_file *file)
{
	int rc = segue_log_file_sync(file);

	if (!rc)
		copy(&file->node->cache, &file->node->disk);
	return rc;
}
