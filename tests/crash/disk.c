/* Disks as a trace leaves them, and images of them after a power cut: disk.h has the contract. */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tmpdir.h"

#define PAGE    4096u
#define SECTOR  512u
#define NAME    64
#define ENTRIES 24
#define NODES   1024
#define LARGEST (UINT64_C(1) << 30)

struct bytes {
	unsigned char *at;
	size_t size, room;
};

/* What is pending; in the order in which it was asked for. */
struct change {
	enum trace_kind kind; /* WRITE, TRUNCATE; CREATE, RENAME, UNLINK: of a directory */
	uint32_t node;
	bool sure;      /* it is on disk, though what was asked for before it may not be */
	bool in_flight; /* an O_DSYNC write that has not returned */
	uint64_t offset;
	size_t size;
	const unsigned char *bytes; /* in the trace */
	uint32_t child;
	const char *name, *second; /* in the trace */
};

struct entry {
	char name[NAME];
	uint32_t node;
};

struct directory {
	struct entry entry[ENTRIES];
	int count;
};

struct node {
	uint64_t inode;
	bool is_directory, is_lock;
	struct bytes bytes;    /* certain */
	struct bytes before;   /* ... before the last sync */
	struct change *synced; /* what that sync made certain */
	size_t synced_count;
	struct directory directory; /* certain */
};

struct disk {
	struct node nodes[NODES]; /* the first is the root */
	uint32_t node_count;
	struct change *pending;
	size_t pending_count, pending_room;
	uint32_t last_synced; /* the file of the last sync; 0: none */
	/* The image: contents by node, and what the names lead to. */
	struct bytes image[NODES];
	struct directory names[NODES];
	uint64_t image_bytes;
};

static void die(const char *what, const char *name)
{
	fprintf(stderr, "disk: %s %s: %s\n", what, name, strerror(errno));
	abort();
}

uint64_t disk_mix(uint64_t seed, uint64_t n)
{
	uint64_t z = seed + (n + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void *grow(void *old, size_t size)
{
	void *grown = realloc(old, size ? size : 1);

	if (!grown)
		die("no memory for", "a disk");
	return grown;
}

/* ---- Bytes ---- */

static void resize(struct bytes *bytes, size_t size)
{
	if (size > bytes->room) {
		bytes->room = 2 * size;
		bytes->at = grow(bytes->at, bytes->room);
	}
	if (size > bytes->size)
		memset(bytes->at + bytes->size, 0, size - bytes->size);
	bytes->size = size;
}

static void put(struct bytes *bytes, uint64_t offset, const unsigned char *from, size_t size)
{
	if (offset + size > bytes->size)
		resize(bytes, offset + size);
	memcpy(bytes->at + offset, from, size);
}

static void put_garbage(struct bytes *bytes, uint64_t offset, size_t size, uint64_t seed)
{
	if (offset + size > bytes->size)
		resize(bytes, offset + size);
	for (size_t i = 0; i < size; i++)
		bytes->at[offset + i] = (unsigned char)disk_mix(seed, i);
}

static void copy(struct bytes *to, const struct bytes *from)
{
	resize(to, 0);
	put(to, 0, from->size ? from->at : (const unsigned char *)"", from->size);
}

/* ---- Names ---- */

static struct entry *find(struct directory *directory, const char *name)
{
	for (int i = 0; i < directory->count; i++)
		if (strcmp(directory->entry[i].name, name) == 0)
			return &directory->entry[i];
	return NULL;
}

static void unlink_name(struct directory *directory, const char *name)
{
	struct entry *entry = find(directory, name);

	if (entry)
		*entry = directory->entry[--directory->count];
}

static void link_name(struct directory *directory, const char *name, uint32_t node)
{
	unlink_name(directory, name);
	if (directory->count == ENTRIES || strlen(name) >= NAME)
		die("too many names, or too long:", name);
	struct entry *entry = &directory->entry[directory->count++];
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	entry->node = node;
}

static void change_names(struct directory *directory, const struct change *change)
{
	struct entry *entry;

	switch (change->kind) {
	case TRACE_CREATE:
		link_name(directory, change->name, change->child);
		break;
	case TRACE_RENAME:
		entry = find(directory, change->name);
		if (entry) { /* else that it was made is not on disk */
			uint32_t node = entry->node;
			unlink_name(directory, change->name);
			link_name(directory, change->second, node);
		}
		break;
	default:
		unlink_name(directory, change->name);
	}
}

/* ---- Making and replaying ---- */

static bool ends_with(const char *name, const char *end)
{
	size_t size = strlen(name), tail = strlen(end);

	return size >= tail && strcmp(name + size - tail, end) == 0;
}

static uint32_t add_node(struct disk *disk, uint64_t inode, bool is_directory, const char *name)
{
	if (disk->node_count == NODES)
		die("too many files:", name);
	disk->nodes[disk->node_count] = (struct node){.inode = inode,
		.is_directory = is_directory,
		.is_lock = ends_with(name, "lock.mdb")};
	return disk->node_count++;
}

/* The newest with that number: numbers are used again. */
static struct node *node_of(struct disk *disk, uint64_t inode)
{
	for (uint32_t i = disk->node_count; i-- > 0;)
		if (disk->nodes[i].inode == inode)
			return &disk->nodes[i];
	die("a file that was never made in", "the trace");
	return NULL;
}

static void scan_file(struct node *node, int fd, const char *name)
{
	unsigned char buffer[65536];
	ssize_t got;

	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		put(&node->bytes, node->bytes.size, buffer, (size_t)got);
	if (got < 0)
		die("read", name);
}

static uint32_t scan(struct disk *disk, int at, const char *name)
{
	struct stat status;
	struct dirent *entry;
	int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fstat(fd, &status) < 0)
		die("open", name);
	uint32_t node = add_node(disk, status.st_ino, S_ISDIR(status.st_mode), name);
	if (!S_ISDIR(status.st_mode)) {
		scan_file(&disk->nodes[node], fd, name);
		close(fd);
		return node;
	}
	DIR *stream = fdopendir(fd);
	while (stream && (entry = readdir(stream)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			link_name(&disk->nodes[node].directory, entry->d_name,
				scan(disk, fd, entry->d_name));
	closedir(stream);
	return node;
}

struct disk *disk_create(const char *root)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		die("no memory for", "a disk");
	scan(disk, AT_FDCWD, root);
	return disk;
}

struct disk *disk_copy(const struct disk *from)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	if (!disk || from->pending_count)
		die("no memory for", "a disk");
	for (uint32_t i = 0; i < from->node_count; i++) {
		disk->nodes[i] = from->nodes[i];
		disk->nodes[i].bytes = (struct bytes){0};
		copy(&disk->nodes[i].bytes, &from->nodes[i].bytes);
	}
	disk->node_count = from->node_count;
	return disk;
}

void disk_destroy(struct disk *disk)
{
	if (!disk)
		return;
	for (uint32_t i = 0; i < disk->node_count; i++) {
		free(disk->nodes[i].bytes.at);
		free(disk->nodes[i].before.at);
		free(disk->nodes[i].synced);
	}
	for (uint32_t i = 0; i < NODES; i++)
		free(disk->image[i].at);
	free(disk->pending);
	free(disk);
}

static void add_change(struct disk *disk, const struct change *change)
{
	if (disk->pending_count == disk->pending_room) {
		disk->pending_room = disk->pending_room ? 2 * disk->pending_room : 64;
		disk->pending = grow(disk->pending, disk->pending_room * sizeof(*change));
	}
	disk->pending[disk->pending_count++] = *change;
}

static void make_certain(struct node *node, const struct change *change)
{
	if (node->is_directory)
		change_names(&node->directory, change);
	else if (change->kind == TRACE_TRUNCATE)
		resize(&node->bytes, change->offset);
	else
		put(&node->bytes, change->offset, change->bytes, change->size);
}

/* What is pending of the node goes to disk, or (failed) is dropped; what is sure stays. */
static void sync_node(struct disk *disk, struct node *node, bool failed)
{
	uint32_t index = (uint32_t)(node - disk->nodes);
	size_t kept = 0, synced = 0;

	if (!failed) {
		copy(&node->before, &node->bytes);
		node->synced = grow(node->synced, disk->pending_count * sizeof(*node->synced));
	}
	for (size_t i = 0; i < disk->pending_count; i++) {
		struct change *change = &disk->pending[i];
		if (change->node != index || (failed && change->sure)) {
			disk->pending[kept++] = *change;
		} else if (!failed) {
			make_certain(node, change);
			node->synced[synced++] = *change;
		}
	}
	disk->pending_count = kept;
	if (!failed && !node->is_directory) {
		node->synced_count = synced;
		disk->last_synced = index;
	}
}

static void apply_names(struct disk *disk, const struct trace_event *event)
{
	const char *name = (const char *)event->bytes;
	uint64_t parent = event->kind == TRACE_RENAME ? event->file : event->other;
	struct change change = {.kind = (enum trace_kind)event->kind, .name = name};

	if (event->kind == TRACE_RENAME && event->file != event->other)
		die("a rename across directories is not modelled:", name);
	if (event->kind == TRACE_RENAME)
		change.second = name + strlen(name) + 1;
	if (event->kind == TRACE_CREATE)
		change.child = add_node(disk, event->file, event->offset != 0, name);
	change.node = (uint32_t)(node_of(disk, parent) - disk->nodes);
	add_change(disk, &change);
}

static void apply_bytes(struct disk *disk, const struct trace_event *event)
{
	const struct change change = {
		.kind = event->kind == TRACE_TRUNCATE ? TRACE_TRUNCATE : TRACE_WRITE,
		.node = (uint32_t)(node_of(disk, event->file) - disk->nodes),
		.in_flight = event->kind == TRACE_DSYNC_WRITE,
		.offset = event->offset,
		.size = trace_payload(event),
		.bytes = event->bytes,
	};

	add_change(disk, &change);
}

void disk_apply(struct disk *disk, const struct trace_event *event, bool *blind)
{
	switch ((enum trace_kind)event->kind) {
	case TRACE_TRUNCATE:
		*blind = *blind || event->offset > LARGEST; /* a file as large as its map */
		if (!*blind)
			apply_bytes(disk, event);
		break;
	case TRACE_WRITE:
	case TRACE_DSYNC_WRITE:
		apply_bytes(disk, event);
		break;
	case TRACE_SYNC:
	case TRACE_FAILED_SYNC:
		sync_node(disk, node_of(disk, event->file), event->kind == TRACE_FAILED_SYNC);
		break;
	case TRACE_CREATE:
	case TRACE_RENAME:
	case TRACE_UNLINK:
		apply_names(disk, event);
		break;
	case TRACE_BLIND:
		*blind = *blind || !node_of(disk, event->file)->is_lock;
		break;
	case TRACE_MARK:
	case TRACE_INJECTED:
		break;
	}
}

void disk_settle(struct disk *disk)
{
	for (size_t i = 0; i < disk->pending_count; i++) {
		struct change *change = &disk->pending[i];
		change->sure = change->sure || change->in_flight;
		change->in_flight = false;
	}
}

/* ---- Images ---- */

static size_t unit_of(struct pick pick)
{
	return pick.kind == PICK_SECTORS || pick.kind == PICK_GARBAGE ||
			       (pick.kind == PICK_LIE && pick.n & 1)
		       ? SECTOR
		       : PAGE;
}

static uint64_t units_in(const struct change *change, size_t unit)
{
	if (change->kind != TRACE_WRITE || change->size == 0)
		return 1;
	return (change->offset + change->size - 1) / unit - change->offset / unit + 1;
}

uint64_t disk_units(const struct disk *disk)
{
	uint64_t units = 0;

	for (size_t i = 0; i < disk->pending_count; i++)
		units += disk->pending[i].sure ? 0 : units_in(&disk->pending[i], PAGE);
	return units;
}

bool disk_in_flight(const struct disk *disk)
{
	return disk->pending_count && disk->pending[disk->pending_count - 1].in_flight;
}

bool disk_can_lie(const struct disk *disk)
{
	return disk->last_synced && disk->nodes[disk->last_synced].synced_count;
}

enum fate { FATE_LOST, FATE_KEPT, FATE_GARBAGE };

/* What becomes of unit `unit` of all that are pending. */
static enum fate fate_of(struct pick pick, uint64_t unit)
{
	uint64_t random = disk_mix(pick.n, unit);

	switch (pick.kind) {
	case PICK_NONE:
		return FATE_LOST;
	case PICK_PREFIX:
		return unit < pick.n ? FATE_KEPT : FATE_LOST;
	case PICK_ALL_BUT:
		return unit != pick.n ? FATE_KEPT : FATE_LOST;
	case PICK_ONLY:
		return unit == pick.n ? FATE_KEPT : FATE_LOST;
	case PICK_PAGES:
	case PICK_SECTORS:
		return random % 4 <= pick.n % 3 ? FATE_KEPT : FATE_LOST;
	case PICK_GARBAGE:
		return (enum fate)(random % 3);
	case PICK_TORN_SYNC:
		return FATE_KEPT;
	case PICK_LIE: /* few are lost, so that the store looks sound at first sight */
		if (random % 16 >= 1 + pick.n / 2 % 3)
			return FATE_KEPT;
		return pick.n & 8 ? FATE_GARBAGE : FATE_LOST;
	}
	return FATE_LOST;
}

/* An O_DSYNC write of a part of a sector: some of its words are there, or the sector is garbage. */
static void tear(struct bytes *image, const struct change *change, uint64_t seed)
{
	size_t words = change->size / 8, first = disk_mix(seed, 1) % (words + 1),
	       last = first + disk_mix(seed, 2) % (words + 1 - first);

	if (seed % 4 == 0) {
		uint64_t sector = change->offset / SECTOR * SECTOR;
		put_garbage(image, sector, SECTOR, seed);
	} else if (seed % 4 == 1) {
		put(image, change->offset, change->bytes, 8 * first);
	} else {
		put(image, change->offset + 8 * first, change->bytes + 8 * first,
			8 * (last - first));
	}
}

/* Applies the part of a write that the pick keeps; *unit counts over all changes. */
static void keep_write(
	struct bytes *image, const struct change *change, struct pick pick, uint64_t *unit)
{
	size_t step = unit_of(pick);
	uint64_t at = change->offset, end = change->offset + change->size;

	if (change->size == 0) {
		++*unit;
		return;
	}
	/* Where the file grew although its bytes were lost, they are zeros. */
	bool sized = pick.kind >= PICK_PAGES && disk_mix(pick.n, UINT64_MAX) % 4 == 0;
	while (at < end) {
		uint64_t next = (at / step + 1) * step < end ? (at / step + 1) * step : end;
		enum fate fate = fate_of(pick, (*unit)++);
		if (fate == FATE_KEPT)
			put(image, at, change->bytes + (at - change->offset), next - at);
		else if (fate == FATE_GARBAGE)
			put_garbage(image, at, next - at, pick.n + at);
		else if (sized && next > image->size)
			resize(image, next);
		at = next;
	}
}

static void image_change(
	struct disk *disk, const struct change *change, struct pick pick, uint64_t *unit)
{
	struct bytes *image = &disk->image[change->node];
	static const struct pick all = {PICK_ALL_BUT, UINT64_MAX};
	uint64_t none = 0;

	if (change->sure || pick.kind == PICK_LIE) {
		keep_write(image, change, all, &none);
	} else if (change->in_flight && pick.kind == PICK_TORN_SYNC) {
		tear(image, change, pick.n);
	} else if (change->in_flight && pick.kind >= PICK_PAGES) {
		/* Within a sector a write takes place whole or not at all. */
		if (fate_of(pick, (*unit)++) == FATE_KEPT)
			put(image, change->offset, change->bytes, change->size);
	} else if (change->kind == TRACE_WRITE) {
		keep_write(image, change, pick, unit);
	} else if (fate_of(pick, (*unit)++) != FATE_KEPT) {
		return;
	} else if (change->kind == TRACE_TRUNCATE) {
		resize(image, change->offset);
	} else {
		change_names(&disk->names[change->node], change);
	}
}

/* The bytes of a file before its last sync, with only a part of what that sync promised. */
static void lie_about(struct disk *disk, struct pick pick)
{
	struct node *node = &disk->nodes[disk->last_synced];
	uint64_t unit = 0;

	copy(&disk->image[disk->last_synced], &node->before);
	for (size_t i = 0; i < node->synced_count; i++) {
		const struct change *change = &node->synced[i];
		if (change->kind == TRACE_TRUNCATE)
			resize(&disk->image[disk->last_synced], change->offset);
		else
			keep_write(&disk->image[disk->last_synced], change, pick, &unit);
	}
}

static uint64_t hash_below(struct disk *disk, uint32_t directory)
{
	uint64_t sum = 1;

	for (int i = 0; i < disk->names[directory].count; i++) {
		const struct entry *entry = &disk->names[directory].entry[i];
		const struct bytes *bytes = &disk->image[entry->node];
		uint64_t below = disk->nodes[entry->node].is_directory
					 ? hash_below(disk, entry->node)
					 : XXH3_64bits(bytes->size ? bytes->at : NULL, bytes->size);
		disk->image_bytes += bytes->size;
		sum += disk_mix(XXH3_64bits(entry->name, strlen(entry->name)), below);
	}
	return sum;
}

uint64_t disk_image(struct disk *disk, struct pick pick)
{
	uint64_t unit = 0;

	for (uint32_t i = 0; i < disk->node_count; i++) {
		copy(&disk->image[i], &disk->nodes[i].bytes);
		disk->names[i] = disk->nodes[i].directory;
	}
	if (pick.kind == PICK_LIE)
		lie_about(disk, pick);
	for (size_t i = 0; i < disk->pending_count; i++)
		image_change(disk, &disk->pending[i], pick, &unit);
	/* The lock file is mapped: what of it was on disk nobody knows, nor may it matter. */
	for (uint32_t i = 0; i < disk->node_count; i++)
		if (disk->nodes[i].is_lock && pick.kind == PICK_GARBAGE)
			put_garbage(&disk->image[i], 0, disk->image[i].size, pick.n);
	disk->image_bytes = 0;
	return hash_below(disk, 0);
}

uint64_t disk_image_bytes(const struct disk *disk)
{
	return disk->image_bytes;
}

static void write_below(const struct disk *disk, uint32_t directory, int at)
{
	for (int i = 0; i < disk->names[directory].count; i++) {
		const struct entry *entry = &disk->names[directory].entry[i];
		const struct bytes *bytes = &disk->image[entry->node];
		bool is_directory = disk->nodes[entry->node].is_directory;
		if (is_directory && mkdirat(at, entry->name, 0700) < 0)
			die("make", entry->name);
		int fd = openat(at, entry->name,
			is_directory ? O_RDONLY | O_DIRECTORY | O_CLOEXEC
				     : O_WRONLY | O_CREAT | O_CLOEXEC,
			0600);
		if (fd < 0)
			die("open", entry->name);
		if (is_directory)
			write_below(disk, entry->node, fd);
		else if (bytes->size &&
			 pwrite(fd, bytes->at, bytes->size, 0) != (ssize_t)bytes->size)
			die("write", entry->name);
		close(fd);
	}
}

void disk_write(const struct disk *disk, const char *root)
{
	segue_tmpdir_remove_path(root);
	int fd = mkdir(root, 0700) < 0 ? -1 : open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		die("make", root);
	write_below(disk, 0, fd);
	close(fd);
}
