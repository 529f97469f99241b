/*
 * The store in LMDB: the only file that knows it.
 *
 * One environment, one named database a table, LMDB's default (full) sync; never WRITEMAP, NOSYNC
 * or NOMETASYNC. LMDB itself detects almost no damage: each value is sealed with a checksum, and a
 * tally a table (count and sum of the seals), written in every transaction, tells values that are
 * missing or are of another time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <lmdb.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/progress.h"
#include "store/store.h"

#define VALUE_MAGIC   0x31564753u /* "SGV1" */
#define RECORD_MAGIC  UINT64_C(0x65726f7473677331)
#define FORMAT_RECORD "store.format"
#define MARK_RECORD   "store.mark"
#define TALLY_RECORD  "store.tally"
#define PID_FILE      "server.pid"
#define STORE_DIR     "store"
#define DATA_FILE     STORE_DIR "/data.mdb"
#define MAP_MAX       (UINT64_C(1) << 40)
#define MAP_MIN       (UINT64_C(1) << 26)
#define FULL_MARGIN   UINT64_C(65536) /* a short write leaves less room than this */
#define READER_CHECKS 256             /* transactions between two looks for dead readers */
#define READER_SLOTS  512             /* in LMDB's lock file, for all processes: 32 KiB */
#define READERS_MAX   48              /* of this process at once: a file has 126 slots at least */
#define FREE_LIST     0               /* LMDB's own table of pages that are free */
#define KEY_TEXT_MAX  (2 * SEGUE_STORE_KEY_MAX + 3)

_Static_assert(sizeof(size_t) == 8, "the map needs 64-bit addresses");

/* Before each payload. `sum` is XXH3-64 over the fields before it, the key and the payload. */
struct value_header {
	uint32_t magic;
	uint16_t format;
	uint16_t table;
	uint64_t length;
	uint64_t sum;
};
_Static_assert(sizeof(struct value_header) == 24, "stored");

/* META "store.format": written once. The first two fields stay in all later formats. */
struct format_record {
	uint64_t magic; /* in the machine's byte order */
	uint32_t format;
	uint32_t pointer_size;
	uint32_t page_size;
	uint32_t reserved;
	uint64_t created_ns;
	uint8_t id[16];
};
_Static_assert(sizeof(struct format_record) == 48, "stored");

/* META "store.mark": in which boot the file was last known to be whole, and how it was left. */
struct mark_record {
	char boot[40];
	uint64_t clean;
};
_Static_assert(sizeof(struct mark_record) == 48, "stored");

/*
 * META "store.tally": per table the number of values and the sum of their seals. Written in every
 * transaction, with its number: a root of the past in the place of the present one is seen so.
 */
struct tally_record {
	uint64_t transaction; /* LMDB's number of it */
	struct {
		uint64_t count, sums;
	} tables[SEGUE_TABLE_COUNT];
};
_Static_assert(sizeof(struct tally_record) == 152, "stored");

static const char *const table_names[SEGUE_TABLE_COUNT] = {
	[SEGUE_TABLE_META] = "meta",
	[SEGUE_TABLE_STREAMS] = "streams",
	[SEGUE_TABLE_LANES] = "lanes",
	[SEGUE_TABLE_STATES] = "states",
	[SEGUE_TABLE_FINALS] = "finals",
	[SEGUE_TABLE_INDEX] = "index",
	[SEGUE_TABLE_UNDO] = "undo",
	[SEGUE_TABLE_CHECKPOINTS] = "checkpoints",
};

const char *segue_table_name(enum segue_table table)
{
	return table_names[table];
}

struct segue_store {
	struct segue_store *next; /* in open_stores */
	dev_t device;
	ino_t inode; /* of the directory */
	int dir_fd;
	enum segue_store_mode mode;
	bool claimed, locked;
	char *dir;  /* as given */
	char *file; /* <dir>/store/data.mdb, for messages */
	MDB_env *env;
	MDB_dbi tables[SEGUE_TABLE_COUNT];
	uint64_t map_max, map_bytes;
	struct format_record format;
	bool was_clean, same_boot;
	bool trusted; /* the mark on disk is of this boot */
	pthread_mutex_t pin_lock;
	MDB_txn *pin;  /* a snapshot from before the write that is under way, or that failed */
	sem_t readers; /* that may still begin; none waits for the writer while it reads */
	atomic_bool failed;
	atomic_uint_fast64_t transactions, bytes_put;
};

/* LMDB must not be opened twice by one process: the second close drops the locks of the first. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct segue_store *open_stores;

/* ---- Errors ---- */

/* `code` is an errno or an MDB_* code. */
static int fail_lmdb(const struct segue_store *store, int code, const char *doing)
{
	switch (code) {
	case MDB_MAP_FULL:
		return segue_fail(SEGUE_ENOSPACE,
			"%s %s: its map of %llu MiB is full: start the server with a greater "
			"--map-size, or without one (a limit on address space, RLIMIT_AS, makes "
			"the "
			"map small too)",
			doing, store->file, (unsigned long long)(store->map_bytes >> 20));
	case MDB_TXN_FULL:
		return segue_fail(SEGUE_ELIMIT,
			"%s %s: too much for one transaction; write it in parts", doing,
			store->file);
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return segue_fail(SEGUE_ENOSPACE, "%s %s: %s; make room and go on", doing,
			store->file, mdb_strerror(code));
	case EROFS:
	case EACCES:
	case EPERM:
		return segue_fail(
			SEGUE_EREADONLY, "%s %s: %s", doing, store->file, mdb_strerror(code));
	case ENOMEM:
	case MDB_READERS_FULL: /* of other processes: they end */
		return segue_fail(
			SEGUE_ENOMEM, "%s %s: %s", doing, store->file, mdb_strerror(code));
	default:
		if (code > 0 && code != EIO)
			return segue_fail(
				SEGUE_ESYSTEM, "%s %s: %s", doing, store->file, mdb_strerror(code));
		return segue_fail(SEGUE_ESTORE, "%s %s: %s" SEGUE_STORE_ADVICE, doing, store->file,
			mdb_strerror(code));
	}
}

/* A system call on `what` in the directory failed. */
static int fail_file(const struct segue_store *store, const char *doing, const char *what)
{
	int code = SEGUE_ESYSTEM;
	if (errno == ENOTDIR && !*what)
		return segue_fail_no_directory(store->dir);
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
		code = SEGUE_ENOSPACE;
	else if (errno == EROFS || errno == EACCES || errno == EPERM)
		code = SEGUE_EREADONLY;
	return segue_fail_errno(code, "%s %s/%s", doing, store->dir, what);
}

static int fail_damaged(const struct segue_store *store, const char *what)
{
	return segue_fail(SEGUE_ESTORE, "%s is damaged: %s" SEGUE_STORE_ADVICE, store->file, what);
}

/* A key for a message: as text if it is one, else in hexadecimal. */
static const char *key_text(const void *key, size_t size, char text[KEY_TEXT_MAX])
{
	const unsigned char *bytes = key;
	bool printable = true;
	for (size_t i = 0; i < size; i++)
		printable = printable && bytes[i] > ' ' && bytes[i] < 127;
	if (printable) {
		snprintf(text, KEY_TEXT_MAX, "%.*s", (int)size, (const char *)key);
		return text;
	}
	snprintf(text, KEY_TEXT_MAX, "0x");
	for (size_t i = 0; i < size; i++)
		snprintf(text + 2 + 2 * i, 3, "%02x", bytes[i]);
	return text;
}

/* ---- Values ---- */

/* One of the store's own records; or, of a prefix, whether it would take those in. */
static bool is_reserved(enum segue_table table, bool prefix, const void *key, size_t size)
{
	size_t own = strlen(SEGUE_STORE_RESERVED);
	if (table != SEGUE_TABLE_META || (size < own && !prefix))
		return false;
	return memcmp(key, SEGUE_STORE_RESERVED, size < own ? size : own) == 0;
}

static uint64_t seal_of(
	const struct value_header *header, const void *key, size_t key_size, const void *payload)
{
	XXH3_state_t state;
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, header, offsetof(struct value_header, sum));
	if (!SEGUE_MUTANT(key_not_in_sum))
		XXH3_64bits_update(&state, key, key_size);
	XXH3_64bits_update(&state, payload, (size_t)header->length);
	return XXH3_64bits_digest(&state);
}

/* Why the stored value is not what was written under this key, or NULL. Fills the header. */
static const char *check_value(enum segue_table table, const void *key, size_t key_size,
	const MDB_val *data, struct value_header *header)
{
	if (data->mv_size < sizeof(*header))
		return "it is shorter than its header";
	memcpy(header, data->mv_data, sizeof(*header));
	if (header->magic != VALUE_MAGIC)
		return "it does not begin as a value does";
	if (header->table != table)
		return "it belongs to another table";
	if (header->length != data->mv_size - sizeof(*header))
		return "its length is wrong";
	if (!SEGUE_MUTANT(sum_not_checked) &&
		header->sum != seal_of(header, key, key_size,
				       (const char *)data->mv_data + sizeof(*header)))
		return "its checksum is wrong";
	return NULL;
}

/* Stores a sealed value; `sum` gets its seal. */
static int put_value(
	struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op, uint64_t *sum)
{
	struct value_header header = {
		.magic = VALUE_MAGIC,
		.format = SEGUE_STORE_FORMAT,
		.table = (uint16_t)op->table,
		.length = op->value_size,
	};
	header.sum = seal_of(&header, op->key, op->key_size, op->value);
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	MDB_val data = {sizeof(header) + op->value_size, NULL};
	int rc = mdb_put(txn, store->tables[op->table], &key, &data, MDB_RESERVE);
	if (rc)
		return rc;
	memcpy(data.mv_data, &header, sizeof(header));
	if (op->value_size)
		memcpy((char *)data.mv_data + sizeof(header), op->value, op->value_size);
	*sum = header.sum;
	return 0;
}

/* The store's own records in META. They are sealed but not counted. */
static int put_record(
	struct segue_store *store, MDB_txn *txn, const char *name, const void *record, size_t size)
{
	uint64_t sum;
	struct segue_store_op op = {
		.table = SEGUE_TABLE_META,
		.key = name,
		.key_size = strlen(name),
		.value = record,
		.value_size = size,
	};
	return put_value(store, txn, &op, &sum);
}

/*
 * LMDB's own, but that what is not found is empty: on a damaged page they may say that all went
 * well and leave `data` as it was.
 */
static int get_value(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *data)
{
	*data = (MDB_val){0, NULL};
	return mdb_get(txn, table, key, data);
}

static int get_entry(MDB_cursor *cursor, MDB_val *key, MDB_val *data, MDB_cursor_op where)
{
	*data = (MDB_val){0, NULL};
	return mdb_cursor_get(cursor, key, data, where);
}

/* 0 or an LMDB code; a record that is not there or not whole is MDB_CORRUPTED. */
static int get_record(
	struct segue_store *store, MDB_txn *txn, const char *name, void *record, size_t size)
{
	struct value_header header;
	MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
	int rc = get_value(txn, store->tables[SEGUE_TABLE_META], &key, &data);
	if (rc)
		return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
	if (check_value(SEGUE_TABLE_META, name, key.mv_size, &data, &header) ||
		header.length < size)
		return MDB_CORRUPTED;
	memcpy(record, (const char *)data.mv_data + sizeof(header), size);
	return 0;
}

/* The tally as the last transaction left it; `ago` is 0 in a snapshot, 1 in a transaction. */
static int get_tally(
	struct segue_store *store, MDB_txn *txn, uint64_t ago, struct tally_record *tally)
{
	int rc = get_record(store, txn, TALLY_RECORD, tally, sizeof(*tally));
	return !rc && tally->transaction + ago != mdb_txn_id(txn) ? MDB_CORRUPTED : rc;
}

static int put_tally(struct segue_store *store, MDB_txn *txn, struct tally_record *tally)
{
	tally->transaction = mdb_txn_id(txn);
	return put_record(store, txn, TALLY_RECORD, tally, sizeof(*tally));
}

/* ---- Transactions ---- */

struct reading {
	MDB_txn *txn;
	bool pinned;
};

/* A snapshot; 0 or an LMDB code. Where there is no slot, those of dead processes are freed. */
static int begin_snapshot(const struct segue_store *store, MDB_txn **txn)
{
	int dead = 0;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
	if (rc == MDB_READERS_FULL && mdb_reader_check(store->env, &dead) == 0 && dead > 0)
		rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
	return rc;
}

/*
 * A snapshot to read from; 0 or an LMDB code. Once a meta page could not be written LMDB refuses
 * even this: then it is the one from before that write, one reader at a time.
 */
static int begin_read(struct segue_store *store, struct reading *reading)
{
	while (sem_wait(&store->readers) < 0) /* EINTR */
		;
	int rc = begin_snapshot(store, &reading->txn);
	reading->pinned = rc == MDB_PANIC;
	if (reading->pinned) {
		pthread_mutex_lock(&store->pin_lock);
		reading->txn = store->pin;
		if (reading->txn)
			return 0;
		pthread_mutex_unlock(&store->pin_lock);
	}
	if (rc)
		sem_post(&store->readers);
	return rc;
}

static void end_read(struct segue_store *store, struct reading *reading)
{
	if (reading->pinned)
		pthread_mutex_unlock(&store->pin_lock);
	else
		mdb_txn_abort(reading->txn);
	sem_post(&store->readers);
}

static void unpin(struct segue_store *store)
{
	pthread_mutex_lock(&store->pin_lock);
	mdb_txn_abort(store->pin);
	store->pin = NULL;
	pthread_mutex_unlock(&store->pin_lock);
}

/* ---- The directory and its lock ---- */

static const char *network_file_system(uint32_t type)
{
	switch (type) {
	case NFS_SUPER_MAGIC:
		return "NFS";
	case SMB_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
		return "SMB";
	case V9FS_MAGIC:
		return "9p";
	case AFS_SUPER_MAGIC:
	case AFS_FS_MAGIC:
		return "AFS";
	default:
		return NULL;
	}
}

static int sync_directory(const struct segue_store *store, int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail_file(store, "open", name);
	int rc = fsync(fd) < 0 ? fail_file(store, "sync", name) : 0;
	close(fd);
	return rc;
}

/*
 * The directories above, as far as they are of the same file system and can be read: server or
 * client may have made some of them just now, and a name that is lost takes the store with it.
 */
static int sync_above(const struct segue_store *store)
{
	int rc = 0, at = store->dir_fd;
	struct stat status, below = {.st_ino = store->inode};
	for (;;) {
		int up = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (at != store->dir_fd)
			close(at);
		at = up;
		if (at < 0)
			return rc;
		if (rc || fstat(at, &status) < 0 || status.st_dev != store->device ||
			status.st_ino == below.st_ino)
			break;
		if (fsync(at) < 0)
			rc = fail_file(store, "sync a directory above", "");
		below = status;
	}
	close(at);
	return rc;
}

static int open_directory(struct segue_store *store)
{
	if (store->mode == SEGUE_STORE_SERVE && mkdir(store->dir, 0700) < 0 && errno != EEXIST)
		return fail_file(store, "make directory", "");
	store->dir_fd = open(store->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir_fd < 0 && errno == ENOENT)
		return segue_fail(
			SEGUE_ENOTFOUND, "there is no store: %s does not exist", store->dir);
	if (store->dir_fd < 0)
		return fail_file(store, "open", "");
	struct statfs system;
	struct stat status;
	if (fstatfs(store->dir_fd, &system) < 0 || fstat(store->dir_fd, &status) < 0)
		return fail_file(store, "look at", "");
	const char *network = network_file_system((uint32_t)system.f_type);
	if (network)
		return segue_fail(SEGUE_ESYSTEM,
			"%s is on a network file system (%s), where a memory-mapped store is not "
			"safe; use a local disk",
			store->dir, network);
	store->device = status.st_dev;
	store->inode = status.st_ino;
	return 0;
}

/* Makes sure that this process has the directory open but once. */
static int claim_directory(struct segue_store *store)
{
	int rc = 0;
	pthread_mutex_lock(&open_lock);
	for (struct segue_store *other = open_stores; other; other = other->next)
		if (other->device == store->device && other->inode == store->inode)
			rc = segue_fail(SEGUE_EBUSY,
				"this process (pid %ld) has the store of %s open already",
				(long)getpid(), store->dir);
	if (!rc) {
		store->next = open_stores;
		open_stores = store;
		store->claimed = true;
	}
	pthread_mutex_unlock(&open_lock);
	return rc;
}

static void unclaim_directory(struct segue_store *store)
{
	pthread_mutex_lock(&open_lock);
	struct segue_store **link = &open_stores;
	while (*link != store)
		link = &(*link)->next;
	*link = store->next;
	pthread_mutex_unlock(&open_lock);
}

/* The pid is for the message alone: the lock is what counts. */
static int fail_busy(const struct segue_store *store)
{
	char text[16] = "";
	int fd = openat(store->dir_fd, PID_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	if (fd >= 0)
		close(fd);
	long pid = strtol(text, NULL, 10);
	if (pid > 0)
		return segue_fail(
			SEGUE_EBUSY, "another segue server (pid %ld) serves %s", pid, store->dir);
	return segue_fail(SEGUE_EBUSY, "another process has %s open", store->dir);
}

static int lock_directory(struct segue_store *store)
{
	bool serve = store->mode == SEGUE_STORE_SERVE;
	store->locked = flock(store->dir_fd, (serve ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0;
	if (store->locked)
		return 0;
	if (errno != EWOULDBLOCK)
		return fail_file(store, "lock", "");
	if (serve && flock(store->dir_fd, LOCK_SH | LOCK_NB) == 0) {
		flock(store->dir_fd, LOCK_UN);
		return segue_fail(SEGUE_EBUSY,
			"a segue command reads the store of %s; try again when it has ended",
			store->dir);
	}
	return fail_busy(store);
}

static int write_pid(struct segue_store *store)
{
	int fd = openat(store->dir_fd, PID_FILE,
		O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return fail_file(store, "write", PID_FILE);
	int rc = dprintf(fd, "%ld\n", (long)getpid()) < 0 ? fail_file(store, "write", PID_FILE) : 0;
	close(fd);
	return rc;
}

/* ---- Creation ---- */

/* Removes a directory of plain files; best effort: what stays is looked at by the next start. */
static void remove_directory(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(stream));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(fd, entry->d_name, 0);
	closedir(stream);
	unlinkat(at, name, AT_REMOVEDIR);
}

/* Removes what creations that were killed left behind. We hold the lock: none is at work. */
static int sweep_leftovers(struct segue_store *store)
{
	int fd = openat(store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		int rc = fail_file(store, "list", "");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (struct dirent *entry; (entry = readdir(stream));) {
		size_t size = strlen(entry->d_name);
		if (size > 4 && strncmp(entry->d_name, ".store-", 7) == 0 &&
			strcmp(entry->d_name + size - 4, ".new") == 0)
			remove_directory(store->dir_fd, entry->d_name);
	}
	closedir(stream);
	return 0;
}

static void read_boot(char boot[40])
{
	memset(boot, 0, 40);
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, boot, 36) != 36)
		memset(boot, 0, 40);
	close(fd);
}

/* LMDB reports a short write as EIO: was there no room? */
static bool is_full(MDB_env *env)
{
	int fd;
	struct statvfs system;
	struct stat status;
	struct rlimit limit;
	if (mdb_env_get_fd(env, &fd) || fstatvfs(fd, &system) < 0 || fstat(fd, &status) < 0 ||
		getrlimit(RLIMIT_FSIZE, &limit) < 0)
		return false;
	return system.f_bavail * system.f_frsize < FULL_MARGIN ||
	       (uint64_t)status.st_size + FULL_MARGIN > limit.rlim_cur;
}

/* A map as large as the address space lets us have. 0 or an LMDB code. */
static int open_environment(
	const char *path, unsigned int flags, uint64_t map_max, MDB_env **out, uint64_t *map_bytes)
{
	if (SEGUE_MUTANT(nosync))
		flags |= MDB_NOSYNC;
	if (SEGUE_MUTANT(nometasync))
		flags |= MDB_NOMETASYNC;
	if (SEGUE_MUTANT(writemap))
		flags |= MDB_WRITEMAP;
	for (uint64_t map = map_max;; map /= 2) {
		MDB_env *env;
		int rc = mdb_env_create(&env);
		if (rc)
			return rc;
		rc = mdb_env_set_maxdbs(env, SEGUE_TABLE_COUNT - 1);
		if (!rc) /* holds for the first to open it: beside another there are as it said */
			rc = mdb_env_set_maxreaders(env, READER_SLOTS);
		if (!rc)
			rc = mdb_env_set_mapsize(env, map);
		if (!rc)
			rc = mdb_env_open(env, path, MDB_NOTLS | flags, 0600);
		int fd;
		if (!rc)
			rc = mdb_env_get_fd(env, &fd);
		if (!rc) {
			fcntl(fd, F_SETFD, FD_CLOEXEC); /* LMDB leaves it inheritable */
			*out = env;
			*map_bytes = map;
			return 0;
		}
		mdb_env_close(env);
		if (rc != ENOMEM || map <= MAP_MIN)
			return rc;
	}
}

static int open_table(struct segue_store *store, MDB_txn *txn, int table, unsigned int flags)
{
	int rc = mdb_dbi_open(txn, table_names[table], flags, &store->tables[table]);

	return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int open_tables(struct segue_store *store, MDB_txn *txn, unsigned int flags)
{
	int rc = 0;

	for (int table = SEGUE_TABLE_META; !rc && table < SEGUE_TABLE_COUNT; table++)
		rc = open_table(store, txn, table, flags);
	return rc;
}

static int put_first_records(struct segue_store *store, MDB_txn *txn)
{
	struct timespec now;
	struct format_record format = {
		.magic = RECORD_MAGIC,
		.format = SEGUE_STORE_FORMAT,
		.pointer_size = sizeof(void *),
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
	};
	clock_gettime(CLOCK_REALTIME, &now);
	format.created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (getrandom(format.id, sizeof(format.id), 0) != sizeof(format.id))
		return errno;
	struct mark_record mark = {.clean = 1};
	struct tally_record tally = {0};
	read_boot(mark.boot);
	int rc = put_record(store, txn, FORMAT_RECORD, &format, sizeof(format));
	if (!rc)
		rc = put_record(store, txn, MARK_RECORD, &mark, sizeof(mark));
	if (!rc)
		rc = put_tally(store, txn, &tally);
	return rc;
}

/* A whole, empty store in the directory `path`; closed again. 0 or an LMDB code. */
static int fill_new_store(struct segue_store *store, const char *path)
{
	MDB_env *env;
	MDB_txn *txn;
	int rc = open_environment(path, 0, store->map_max, &env, &store->map_bytes);
	if (rc)
		return rc;
	rc = mdb_txn_begin(env, NULL, 0, &txn);
	if (rc)
		goto close;
	rc = open_tables(store, txn, MDB_CREATE);
	if (!rc)
		rc = put_first_records(store, txn);
	if (rc) {
		mdb_txn_abort(txn);
		goto close;
	}
	rc = mdb_txn_commit(txn);
	if (!rc)
		rc = mdb_env_sync(env, 1);
close:
	if (rc == EIO && is_full(env))
		rc = ENOSPC;
	mdb_env_close(env);
	return rc;
}

/* LMDB syncs neither the first meta pages nor any directory: done here, before the rename. */
static int settle_new_store(struct segue_store *store, const char *name)
{
	char data[64];
	snprintf(data, sizeof(data), "%s/data.mdb", name);
	int fd = openat(store->dir_fd, data, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail_file(store, "open", data);
	int rc = fsync(fd) < 0 ? fail_file(store, "sync", data) : 0;
	close(fd);
	if (!rc)
		rc = sync_directory(store, store->dir_fd, name);
	if (!rc && renameat(store->dir_fd, name, store->dir_fd, STORE_DIR) < 0)
		rc = fail_file(store, "rename to", STORE_DIR);
	if (!rc)
		rc = sync_directory(store, store->dir_fd, ".");
	if (!rc && !SEGUE_MUTANT(above_not_synced))
		rc = sync_above(store);
	return rc;
}

static int create_store(struct segue_store *store)
{
	uint32_t random;
	char name[32], *path = NULL;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return segue_fail_errno(SEGUE_ESYSTEM, "random number");
	snprintf(name, sizeof(name), ".store-%08x.new", random);
	if (SEGUE_MUTANT(created_in_place))
		snprintf(name, sizeof(name), STORE_DIR);
	if (mkdirat(store->dir_fd, name, 0700) < 0)
		return fail_file(store, "make directory", name);
	int rc = asprintf(&path, "%s/%s", store->dir, name) < 0 ? ENOMEM : 0;
	if (!rc)
		rc = fill_new_store(store, path);
	if (rc == EIO) /* nothing was there that could be damaged */
		rc = segue_fail(SEGUE_ESYSTEM, "create %s: %s", store->file, strerror(rc));
	else if (rc)
		rc = fail_lmdb(store, rc, "create");
	else
		rc = settle_new_store(store, name);
	free(path);
	if (rc)
		remove_directory(store->dir_fd, name);
	return rc;
}

/* ---- Opening ---- */

/*
 * Looks at the head of the file before LMDB does: LMDB would turn an empty file into an empty
 * store, and take a file from a machine of another kind for a damaged one.
 */
static int check_head(struct segue_store *store)
{
	static const uint32_t lmdb_magic = 0xBEEFC0DE;
	uint32_t words[8];
	int fd = openat(store->dir_fd, DATA_FILE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return fail_damaged(store, "data.mdb is missing");
	if (fd < 0)
		return fail_file(store, "open", DATA_FILE);
	struct stat status;
	ssize_t size = pread(fd, words, sizeof(words), 0);
	int rc = size < 0 || fstat(fd, &status) < 0 ? fail_file(store, "read", DATA_FILE) : 0;
	close(fd);
	if (rc)
		return rc;
	if (!S_ISREG(status.st_mode))
		return fail_damaged(store, "it is no regular file");
	if (status.st_size < 2 * sysconf(_SC_PAGESIZE))
		return fail_damaged(store, "it is cut short");
	uint32_t narrow = words[3], here = words[4]; /* 12 bytes of page header, or 16 */
	if (here != lmdb_magic &&
		(narrow == lmdb_magic || narrow == __builtin_bswap32(lmdb_magic) ||
			here == __builtin_bswap32(lmdb_magic)))
		return segue_fail(SEGUE_EFORMAT,
			"%s was written on another kind of machine (byte order or word size)",
			store->file);
	return 0;
}

static int check_format(struct segue_store *store, MDB_txn *txn)
{
	struct format_record *format = &store->format;
	int rc = get_record(
		store, txn, FORMAT_RECORD, format, offsetof(struct format_record, pointer_size));
	if (rc)
		return fail_lmdb(store, rc, "read the format record of");
	if (format->magic != RECORD_MAGIC)
		return fail_damaged(store, "its format record is none");
	if (format->format > SEGUE_STORE_FORMAT)
		return segue_fail(SEGUE_EFORMAT,
			"%s has format %u; this program (%s) knows formats up to %d: use a later "
			"one",
			store->file, format->format, SEGUE_VERSION_STRING, SEGUE_STORE_FORMAT);
	if (format->format < SEGUE_STORE_FORMAT)
		return segue_fail(SEGUE_EFORMAT,
			"%s has format %u, of an earlier segue; this program (%s) reads format %d "
			"alone: "
			"make a new store",
			store->file, format->format, SEGUE_VERSION_STRING, SEGUE_STORE_FORMAT);
	rc = get_record(store, txn, FORMAT_RECORD, format, sizeof(*format));
	if (rc)
		return fail_lmdb(store, rc, "read the format record of");
	if (format->pointer_size != sizeof(void *) ||
		format->page_size != (uint32_t)sysconf(_SC_PAGESIZE))
		return segue_fail(SEGUE_EFORMAT,
			"%s was written on another kind of machine: pointers of %u bytes, pages of "
			"%u, here %zu and %ld",
			store->file, format->pointer_size, format->page_size, sizeof(void *),
			sysconf(_SC_PAGESIZE));
	return 0;
}

static int read_records(struct segue_store *store)
{
	MDB_txn *txn;
	struct mark_record mark;
	struct tally_record tally;
	char boot[40];
	bool suspect =
		faccessat(store->dir_fd, SEGUE_STORE_SUSPECT, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	int rc = begin_snapshot(store, &txn);
	if (rc)
		return fail_lmdb(store, rc, "read");
	/* The format first: another has other tables. */
	rc = open_table(store, txn, SEGUE_TABLE_META, 0);
	if (rc) {
		rc = fail_lmdb(store, rc, "open the tables of");
		goto abort;
	}
	rc = check_format(store, txn);
	if (rc)
		goto abort;
	rc = open_tables(store, txn, 0);
	if (rc) {
		rc = fail_lmdb(store, rc, "open the tables of");
		goto abort;
	}
	rc = get_record(store, txn, MARK_RECORD, &mark, sizeof(mark));
	if (!rc)
		rc = get_tally(store, txn, 0, &tally);
	if (rc) {
		rc = fail_lmdb(store, rc, "read the marks of");
		goto abort;
	}
	read_boot(boot);
	store->was_clean = mark.clean != 0 && !suspect;
	store->same_boot = !suspect && boot[0] && memcmp(boot, mark.boot, sizeof(boot)) == 0;
	rc = mdb_txn_commit(txn); /* keeps the handles of the tables */
	return rc ? fail_lmdb(store, rc, "read") : 0;
abort:
	mdb_txn_abort(txn);
	return rc;
}

static int open_existing(struct segue_store *store)
{
	char *path = NULL;
	int rc = check_head(store);
	if (rc)
		return rc;
	if (asprintf(&path, "%s/" STORE_DIR, store->dir) < 0)
		return segue_fail(SEGUE_ENOMEM, "path of the store");
	rc = open_environment(path, store->mode == SEGUE_STORE_READ ? MDB_RDONLY : 0,
		store->map_max, &store->env, &store->map_bytes);
	free(path);
	return rc ? fail_lmdb(store, rc, "open") : read_records(store);
}

static int write_mark(struct segue_store *store, bool clean);

static int open_to_serve(struct segue_store *store, const struct segue_store_serving *serving)
{
	int dead;
	int rc = write_pid(store);
	if (!rc)
		rc = sweep_leftovers(store);
	if (!rc && faccessat(store->dir_fd, STORE_DIR, F_OK, 0) < 0)
		rc = errno == ENOENT ? create_store(store) : fail_file(store, "find", STORE_DIR);
	else if (!rc && serving->check)
		rc = serving->check(serving->arg);
	if (!rc)
		rc = open_existing(store);
	if (rc)
		return rc;
	mdb_reader_check(store->env, &dead);
	return store->was_clean || store->same_boot ? write_mark(store, false) : 0;
}

static int open_to_read(struct segue_store *store)
{
	if (faccessat(store->dir_fd, STORE_DIR, F_OK, 0) < 0 && errno == ENOENT)
		return segue_fail(SEGUE_ENOTFOUND, "there is no store in %s", store->dir);
	return open_existing(store);
}

static const struct segue_store_serving plainly;

static int store_open(const char *dir, enum segue_store_mode mode, bool lock,
	const struct segue_store_serving *serving, struct segue_store **out)
{
	struct segue_store *store = calloc(1, sizeof(*store));
	if (!store)
		return segue_fail(SEGUE_ENOMEM, "store of %s", dir);
	store->mode = mode;
	store->map_max = serving->map_bytes ? serving->map_bytes : MAP_MAX;
	store->dir_fd = -1;
	pthread_mutex_init(&store->pin_lock, NULL);
	sem_init(&store->readers, 0, READERS_MAX);
	store->dir = strdup(dir);
	int rc = 0;
	if (!store->dir || asprintf(&store->file, "%s/" DATA_FILE, dir) < 0) {
		store->file = NULL;
		rc = segue_fail(SEGUE_ENOMEM, "store of %s", dir);
	}
	if (!rc)
		rc = open_directory(store);
	if (!rc)
		rc = claim_directory(store);
	if (!rc && lock)
		rc = lock_directory(store);
	if (!rc)
		rc = mode == SEGUE_STORE_SERVE ? open_to_serve(store, serving)
					       : open_to_read(store);
	if (rc) {
		segue_store_close(store);
		return rc;
	}
	*out = store;
	return 0;
}

int segue_store_open(const char *dir, enum segue_store_mode mode, struct segue_store **out)
{
	return store_open(dir, mode, true, &plainly, out);
}

int segue_store_serve(
	const char *dir, const struct segue_store_serving *serving, struct segue_store **out)
{
	return store_open(dir, SEGUE_STORE_SERVE, true, serving, out);
}

void segue_store_close(struct segue_store *store)
{
	if (!store)
		return;
	if (store->trusted && !store->failed)
		write_mark(
			store, true); /* if it fails, the end was not clean, and is not marked so */
	if (store->env) {
		unpin(store);
		mdb_env_close(store->env);
	}
	pthread_mutex_destroy(&store->pin_lock);
	sem_destroy(&store->readers);
	if (store->locked && store->mode == SEGUE_STORE_SERVE)
		unlinkat(store->dir_fd, PID_FILE, 0);
	if (store->claimed)
		unclaim_directory(store);
	if (store->dir_fd >= 0)
		close(store->dir_fd);
	free(store->dir);
	free(store->file);
	free(store);
}

/* ---- Writing ---- */

/* False once LMDB has lost track of its meta page. */
static bool can_begin(const struct segue_store *store)
{
	MDB_txn *txn;
	if (mdb_txn_begin(store->env, NULL, 0, &txn))
		return false;
	mdb_txn_abort(txn);
	return true;
}

/* The transaction is over; decides whether there may be another. */
static int fail_write(struct segue_store *store, int code, bool committing)
{
	bool full = code == ENOSPC || code == EDQUOT || code == EFBIG || code == MDB_MAP_FULL;
	if (code == EIO && is_full(store->env)) {
		full = true;
		code = ENOSPC;
	}
	/* LMDB needs memory only before it writes: nothing of this transaction is in force. */
	if ((full || code == ENOMEM) && can_begin(store))
		return fail_lmdb(store, code, "write");
	bool passes = code == ENOMEM || code == MDB_TXN_FULL || code == MDB_READERS_FULL;
	if (!committing && passes)
		return fail_lmdb(store, code, "write");
	store->failed = !SEGUE_MUTANT(goes_on_after_failure);
	/* The system may show what never reached the disk until the machine stops: be that seen. */
	int mark = openat(store->dir_fd, SEGUE_STORE_SUSPECT,
		O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (mark >= 0)
		close(mark);
	return segue_fail(SEGUE_ESTORE,
		"write %s: %s; %s: the store takes no more until the server is started again",
		store->file, mdb_strerror(code),
		committing ? "whether the last write took place is not known"
			   : "nothing of this write took place");
}

/* Commits while a snapshot of the state before is held. The end of `txn`. */
static int commit(struct segue_store *store, MDB_txn *txn)
{
	MDB_txn *pin;
	int rc = begin_snapshot(store, &pin);
	if (rc) {
		mdb_txn_abort(txn);
		return fail_write(store, rc, false);
	}
	pthread_mutex_lock(&store->pin_lock);
	store->pin = pin;
	pthread_mutex_unlock(&store->pin_lock);
	rc = mdb_txn_commit(txn);
	if (!rc || can_begin(store))
		unpin(store);
	return rc ? fail_write(store, rc, true) : 0;
}

static int write_mark(struct segue_store *store, bool clean)
{
	MDB_txn *txn;
	struct mark_record mark = {.clean = clean};
	struct tally_record tally;
	read_boot(mark.boot);
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
	if (rc)
		return fail_write(store, rc, false);
	rc = put_record(store, txn, MARK_RECORD, &mark, sizeof(mark));
	if (!rc)
		rc = get_tally(store, txn, 1, &tally);
	if (!rc)
		rc = put_tally(store, txn, &tally);
	if (rc) {
		mdb_txn_abort(txn);
		return fail_write(store, rc, false);
	}
	rc = commit(store, txn);
	if (rc)
		return rc;
	store->trusted = true;
	return 0;
}

int segue_store_trust(struct segue_store *store)
{
	if (store->mode == SEGUE_STORE_READ)
		return segue_fail(SEGUE_EREADONLY, "the store of %s is open to read", store->dir);
	int rc = store->trusted ? 0 : write_mark(store, false);
	if (!rc)
		unlinkat(store->dir_fd, SEGUE_STORE_SUSPECT, 0);
	return rc;
}

/* Takes the value under the key, if there is one, out of the tally. 0, MDB_NOTFOUND or a code. */
static int tally_out(struct segue_store *store, MDB_txn *txn, enum segue_table table, MDB_val *key,
	struct tally_record *tally)
{
	MDB_val data;
	struct value_header header;
	int rc = get_value(txn, store->tables[table], key, &data);
	if (rc)
		return rc;
	if (data.mv_size < sizeof(header))
		return MDB_CORRUPTED;
	memcpy(&header, data.mv_data, sizeof(header));
	tally->tables[table].count--;
	tally->tables[table].sums -= header.sum;
	return 0;
}

static int apply_put(struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op,
	struct tally_record *tally)
{
	uint64_t sum = 0;
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	int rc = tally_out(store, txn, op->table, &key, tally);
	if (rc && rc != MDB_NOTFOUND)
		return rc;
	rc = put_value(store, txn, op, &sum);
	tally->tables[op->table].count++;
	tally->tables[op->table].sums += sum;
	return rc;
}

/* 0, MDB_NOTFOUND or another code. */
static int remove_key(struct segue_store *store, MDB_txn *txn, enum segue_table table, MDB_val *key,
	struct tally_record *tally)
{
	int rc = tally_out(store, txn, table, key, tally);
	return rc ? rc : mdb_del(txn, store->tables[table], key, NULL);
}

static int apply_remove(struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op,
	struct tally_record *tally)
{
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	int rc = remove_key(store, txn, op->table, &key, tally);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static bool has_prefix(const MDB_val *key, const void *prefix, size_t size)
{
	return key->mv_size >= size && (size == 0 || memcmp(key->mv_data, prefix, size) == 0);
}

/* LMDB's order of keys. */
static bool sorts_below(const MDB_val *key, const void *other, size_t size)
{
	size_t common = key->mv_size < size ? key->mv_size : size;
	int order = memcmp(key->mv_data, other, common);

	return order < 0 || (order == 0 && key->mv_size < size);
}

/* Every key that begins with `key`, or, with `shared`, those that begin as it does, below it. */
static int apply_remove_range(struct segue_store *store, MDB_txn *txn,
	const struct segue_store_op *op, struct tally_record *tally)
{
	size_t prefix = op->prefix ? op->key_size : op->shared;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, store->tables[op->table], &cursor);
	if (rc)
		return rc;
	for (;;) {
		MDB_val key = {prefix, (void *)(uintptr_t)op->key}, data;
		rc = get_entry(cursor, &key, &data, MDB_SET_RANGE);
		if (rc || !has_prefix(&key, op->key, prefix) ||
			(!op->prefix && !sorts_below(&key, op->key, op->key_size)))
			break;
		/* a write may move the page that the key lies on */
		char copy[SEGUE_STORE_KEY_MAX];
		if (key.mv_size > sizeof(copy)) {
			rc = MDB_CORRUPTED;
			break;
		}
		memcpy(copy, key.mv_data, key.mv_size);
		key.mv_data = copy;
		rc = remove_key(store, txn, op->table, &key, tally);
		if (rc ==
			MDB_NOTFOUND) /* a branch leads past it: the cursor would meet it for ever */
			rc = MDB_CORRUPTED;
		if (rc)
			break;
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int apply_ops(struct segue_store *store, MDB_txn *txn, const struct segue_store_op *ops,
	size_t count, uint64_t *bytes)
{
	struct tally_record tally;
	int rc = get_tally(store, txn, 1, &tally);
	for (size_t i = 0; !rc && i < count; i++) {
		if (!ops[i].remove) {
			rc = apply_put(store, txn, &ops[i], &tally);
			*bytes += ops[i].value_size;
		} else if (ops[i].prefix || ops[i].shared) {
			rc = apply_remove_range(store, txn, &ops[i], &tally);
		} else {
			rc = apply_remove(store, txn, &ops[i], &tally);
		}
	}
	return rc ? rc : put_tally(store, txn, &tally);
}

static int check_key(enum segue_table table, const void *key, size_t size)
{
	if (table < SEGUE_TABLE_META || table >= SEGUE_TABLE_COUNT)
		return segue_fail(SEGUE_EINVAL, "there is no table %d", (int)table);
	if (!key || size < 1 || size > SEGUE_STORE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL, "a key of table %s has %zu bytes, not 1 to %d",
			table_names[table], size, SEGUE_STORE_KEY_MAX);
	return 0;
}

static int check_ops(const struct segue_store_op *ops, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct segue_store_op *op = &ops[i];
		int rc = check_key(op->table, op->key, op->key_size);
		if (rc)
			return segue_fail_within(rc, "operation %zu", i);
		if (op->remove && op->shared && (op->prefix || op->shared > op->key_size))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: a range is given by %zu bytes of a key of %zu", i,
				op->shared, op->key_size);
		bool range = op->remove && (op->prefix || op->shared);
		size_t fixed = op->remove && op->shared ? op->shared : op->key_size;
		if (is_reserved(op->table, range, op->key, fixed))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: keys of table meta that begin with '%s' are the "
				"store's own",
				i, SEGUE_STORE_RESERVED);
		if (!op->remove &&
			((!op->value && op->value_size) || op->value_size > SEGUE_STORE_VALUE_MAX))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: a value of %zu bytes; at most %u are stored", i,
				op->value_size, SEGUE_STORE_VALUE_MAX);
	}
	return 0;
}

int segue_store_apply(struct segue_store *store, const struct segue_store_op *ops, size_t count)
{
	MDB_txn *txn;
	uint64_t bytes = 0;
	int dead;
	int rc = check_ops(ops, count);
	if (rc || count == 0)
		return rc;
	if (store->mode == SEGUE_STORE_READ)
		return segue_fail(SEGUE_EREADONLY, "the store of %s is open to read", store->dir);
	if (store->failed)
		return segue_fail(SEGUE_ESTORE,
			"an earlier write to %s failed: the store takes no more until the server "
			"is started again",
			store->file);
	rc = mdb_txn_begin(store->env, NULL, 0, &txn);
	if (rc)
		return fail_write(store, rc, false);
	rc = apply_ops(store, txn, ops, count, &bytes);
	if (rc) {
		mdb_txn_abort(txn);
		return fail_write(store, rc, false);
	}
	rc = commit(store, txn);
	if (rc)
		return rc;
	store->bytes_put += bytes;
	if (++store->transactions % READER_CHECKS == 0)
		mdb_reader_check(store->env, &dead); /* a dead reader would pin old pages */
	return 0;
}

/* ---- Reading ---- */

static int fail_value(const struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, const char *why)
{
	char text[KEY_TEXT_MAX];
	return segue_fail(SEGUE_ESTORE,
		"the value of key %s in table %s of %s is damaged: %s" SEGUE_STORE_ADVICE,
		key_text(key, key_size, text), table_names[table], store->file, why);
}

int segue_store_get(struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, void **value, size_t *value_size)
{
	struct reading reading;
	char text[KEY_TEXT_MAX];
	struct value_header header;
	MDB_val name = {key_size, (void *)(uintptr_t)key}, data;
	int rc = check_key(table, key, key_size);
	if (rc)
		return rc;
	rc = begin_read(store, &reading);
	if (rc)
		return fail_lmdb(store, rc, "read");
	rc = get_value(reading.txn, store->tables[table], &name, &data);
	if (rc) {
		rc = rc != MDB_NOTFOUND
			     ? fail_lmdb(store, rc, "read")
			     : segue_fail(SEGUE_ENOTFOUND, "there is no key %s in table %s",
				       key_text(key, key_size, text), table_names[table]);
		goto end;
	}
	const char *why = check_value(table, key, key_size, &data, &header);
	if (why) {
		rc = fail_value(store, table, key, key_size, why);
		goto end;
	}
	void *copy = malloc(header.length ? (size_t)header.length : 1);
	if (!copy) {
		rc = segue_fail(
			SEGUE_ENOMEM, "a value of %llu bytes", (unsigned long long)header.length);
		goto end;
	}
	memcpy(copy, (const char *)data.mv_data + sizeof(header), (size_t)header.length);
	*value = copy;
	*value_size = (size_t)header.length;
end:
	end_read(store, &reading);
	return rc;
}

struct walk {
	segue_store_visit_fn *visit;
	segue_store_damage_fn *damage;
	void *arg;
	const struct segue_store_inspection *inspection; /* of all tables; or NULL */
	struct segue_progress progress;
	int stopped;     /* what its visitor said; or a want of memory, ... */
	MDB_txn *lookup; /* if set, each key must also be found from the root */
	uint8_t *
		free_pages; /* owned: if set, a bit for each of `pages`; none of these may be in use */
	uint64_t pages;
	uint64_t overlaps; /* entries that lie on such pages */
	struct segue_store_verified counts;
	uint64_t sums;                           /* of the values that the tally counts */
	uint64_t counted;                        /* how many those are */
	unsigned char last[SEGUE_STORE_KEY_MAX]; /* the key before */
	size_t last_size;
};

/* Keys rise: that holds in a sound file, and ends a walk through pages that lead in a circle. */
static bool key_follows(struct walk *walk, const MDB_val *key)
{
	if (key->mv_size < 1 || key->mv_size > SEGUE_STORE_KEY_MAX)
		return false;
	size_t common = key->mv_size < walk->last_size ? key->mv_size : walk->last_size;
	int order = memcmp(key->mv_data, walk->last, common);
	if (order < 0 || (order == 0 && key->mv_size <= walk->last_size))
		return false;
	memcpy(walk->last, key->mv_data, key->mv_size);
	walk->last_size = key->mv_size;
	return true;
}

static int walk_damage(struct segue_store *store, struct walk *walk, enum segue_table table,
	const MDB_val *key, const char *why)
{
	walk->counts.damaged++;
	if (!walk->damage)
		return fail_value(store, table, key->mv_data, key->mv_size, why);
	walk->damage(walk->arg, table, key->mv_data, key->mv_size, why);
	return 0;
}

/* Damage further up the tree can hide a key from a look-up that a walk along the leaves meets. */
static bool is_found(
	struct segue_store *store, MDB_txn *txn, enum segue_table table, MDB_val *key, void *data)
{
	MDB_val found;
	return get_value(txn, store->tables[table], key, &found) == 0 && found.mv_data == data;
}

static int inspect_entry(struct walk *walk, enum segue_table table, const MDB_val *key,
	const char *payload, size_t size)
{
	const struct segue_store_inspection *inspection = walk->inspection;

	segue_progress_add(&walk->progress, size + sizeof(struct value_header) + key->mv_size);
	if (!inspection->visit)
		return 0;
	walk->stopped = inspection->visit(
		inspection->arg, table, key->mv_data, key->mv_size, payload, size);
	return walk->stopped;
}

static bool is_free(const struct walk *walk, uint64_t page)
{
	return page >= walk->pages || (walk->free_pages[page / 8] >> page % 8 & 1);
}

/*
 * True if a page that holds the bytes is listed as free: the next write would go over it. LMDB's
 * pages begin with their number and are aligned; those of a large value lie side by side.
 */
static bool lies_on_free_page(const struct walk *walk, const void *at, size_t size)
{
	uintptr_t unit = (uintptr_t)sysconf(_SC_PAGESIZE), offset = (uintptr_t)at % unit;
	uint64_t first;

	memcpy(&first, (const char *)at - offset, sizeof(first));
	for (uint64_t i = 0; i <= (offset + size - 1) / unit; i++)
		if (is_free(walk, first + i))
			return true;
	return false;
}

/* One entry. Sets `*ended` at the first sound key that does not begin with the prefix. */
static int walk_entry(struct segue_store *store, struct walk *walk, enum segue_table table,
	const MDB_val *prefix, MDB_val *key, const MDB_val *data, bool *ended)
{
	struct value_header header;
	/* before the prefix is compared: a damaged key must not end the walk as if all were seen */
	const char *why = check_value(table, key->mv_data, key->mv_size, data, &header);
	if (!why && walk->lookup && !is_found(store, walk->lookup, table, key, data->mv_data))
		why = "it is not found under its key";
	if (walk->free_pages && (lies_on_free_page(walk, key->mv_data, key->mv_size) ||
					lies_on_free_page(walk, data->mv_data, data->mv_size)))
		walk->overlaps++;
	if (why)
		return walk_damage(store, walk, table, key, why);
	*ended = !has_prefix(key, prefix->mv_data, prefix->mv_size);
	if (*ended)
		return 0;
	walk->counts.values++;
	walk->counts.bytes += header.length;
	if (is_reserved(table, false, key->mv_data, key->mv_size))
		return 0;
	walk->counted++;
	walk->sums += header.sum;
	const char *payload = (const char *)data->mv_data + sizeof(header);
	if (walk->inspection)
		return inspect_entry(walk, table, key, payload, (size_t)header.length);
	return !walk->visit ? 0
			    : walk->visit(walk->arg, key->mv_data, key->mv_size, payload,
				      (size_t)header.length);
}

/* All entries from `from` on that begin as it does in `prefix_size` bytes. */
static int walk_table(struct segue_store *store, MDB_txn *txn, enum segue_table table,
	const MDB_val *from, size_t prefix_size, struct walk *walk)
{
	const MDB_val prefix = {prefix_size, from->mv_data};
	MDB_cursor *cursor;
	MDB_val key = *from, data;
	bool ended = false;
	walk->last_size = 0;
	int rc = mdb_cursor_open(txn, store->tables[table], &cursor);
	if (rc)
		return fail_lmdb(store, rc, "read");
	int got = get_entry(cursor, &key, &data, from->mv_size ? MDB_SET_RANGE : MDB_FIRST);
	while (!got) {
		if (!key_follows(walk, &key)) {
			rc = fail_damaged(store, "keys are out of order");
			break;
		}
		rc = walk_entry(store, walk, table, &prefix, &key, &data, &ended);
		if (rc || ended)
			break;
		got = get_entry(cursor, &key, &data, MDB_NEXT);
	}
	if (got && got != MDB_NOTFOUND)
		rc = fail_lmdb(store, got, "read");
	mdb_cursor_close(cursor);
	return rc;
}

static int scan(struct segue_store *store, enum segue_table table, const MDB_val *from,
	size_t prefix_size, struct walk *walk)
{
	struct reading reading;
	int rc = check_key(
		table, from->mv_size ? from->mv_data : "-", from->mv_size ? from->mv_size : 1);
	if (rc)
		return rc;
	rc = begin_read(store, &reading);
	if (rc)
		return fail_lmdb(store, rc, "read");
	rc = walk_table(store, reading.txn, table, from, prefix_size, walk);
	end_read(store, &reading);
	return rc;
}

int segue_store_scan(struct segue_store *store, enum segue_table table, const void *prefix,
	size_t prefix_size, segue_store_visit_fn *visit, segue_store_damage_fn *damage, void *arg)
{
	const MDB_val from = {prefix_size, (void *)(uintptr_t)prefix};
	struct walk walk = {.visit = visit, .damage = damage, .arg = arg};

	return scan(store, table, &from, prefix_size, &walk);
}

int segue_store_scan_from(struct segue_store *store, enum segue_table table, const void *from,
	size_t from_size, size_t prefix_size, segue_store_visit_fn *visit, void *arg)
{
	const MDB_val key = {from_size, (void *)(uintptr_t)from};
	struct walk walk = {.visit = visit, .arg = arg};

	return scan(store, table, &key, prefix_size, &walk);
}

/* ---- Verifying and figures ---- */

static void table_damage(struct walk *walk, enum segue_table table, const char *why)
{
	walk->counts.damaged++;
	if (walk->damage)
		walk->damage(walk->arg, table, NULL, 0, why);
}

/* Takes a piece of LMDB's list of free pages: a count, and so many numbers. False: it is none. */
static bool take_free_pages(struct walk *walk, const MDB_val *data)
{
	uint64_t count, page;

	if (data->mv_size < sizeof(count))
		return false;
	memcpy(&count, data->mv_data, sizeof(count));
	if (count > data->mv_size / sizeof(page) - 1)
		return false;
	for (uint64_t i = 1; i <= count; i++) {
		memcpy(&page, (const char *)data->mv_data + i * sizeof(page), sizeof(page));
		if (page < 2 || is_free(walk, page)) /* or it is there twice */
			return false;
		walk->free_pages[page / 8] |= (uint8_t)(1u << page % 8);
	}
	return true;
}

/*
 * Reads the list of free pages. It has no checksum, and one of the past would let the next write go
 * over pages that are in use.
 */
static int read_free_pages(struct segue_store *store, MDB_txn *txn, struct walk *walk)
{
	MDB_envinfo info;
	MDB_cursor *cursor;
	MDB_val key, data;
	bool sound = true;
	int got;

	mdb_env_info(store->env, &info);
	walk->pages = info.me_last_pgno + 1;
	walk->free_pages = calloc(walk->pages / 8 + 1, 1);
	if (!walk->free_pages)
		return segue_fail(SEGUE_ENOMEM, "no memory to verify %s", store->file);
	int rc = mdb_cursor_open(txn, FREE_LIST, &cursor);
	if (rc)
		return fail_lmdb(store, rc, "read");
	while (sound && (got = get_entry(cursor, &key, &data, MDB_NEXT)) == 0)
		sound = take_free_pages(walk, &data);
	mdb_cursor_close(cursor);
	if (!sound || got != MDB_NOTFOUND)
		table_damage(walk, SEGUE_TABLE_META, "the list of free pages is wrong");
	return 0;
}

/* One table against its tally. Damage is counted in the walk; what else went wrong stops it. */
static void verify_table(struct segue_store *store, MDB_txn *txn, enum segue_table table,
	const struct tally_record *tally, struct walk *walk)
{
	MDB_val all = {0, NULL};
	uint64_t before = walk->counts.damaged;
	walk->counted = 0;
	walk->sums = 0;
	walk->lookup = txn;
	int rc = walk_table(store, txn, table, &all, 0, walk);
	if (rc && rc != SEGUE_ESTORE)
		walk->stopped = rc;
	if (walk->stopped)
		return;
	if (rc)
		table_damage(walk, table, segue_error_detail());
	else if (SEGUE_MUTANT(tally_not_checked))
		return;
	else if (walk->counts.damaged == before && walk->counted != tally->tables[table].count)
		table_damage(walk, table, "values are missing, or there are too many");
	else if (walk->counts.damaged == before && walk->sums != tally->tables[table].sums)
		table_damage(walk, table, "a value is not the last that was written");
}

static void ignore_damage(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)arg, (void)table, (void)key, (void)key_size, (void)why;
}

/* Bytes of the pages that hold the tables. */
static uint64_t used_bytes(const struct segue_store *store)
{
	MDB_txn *txn;
	uint64_t bytes = 0;
	if (begin_snapshot(store, &txn))
		return 0;
	for (int table = SEGUE_TABLE_META; table < SEGUE_TABLE_COUNT; table++) {
		MDB_stat stat;
		if (mdb_stat(txn, store->tables[table], &stat) == 0)
			bytes += (stat.ms_branch_pages + stat.ms_leaf_pages +
					 stat.ms_overflow_pages) *
				 stat.ms_psize;
	}
	mdb_txn_abort(txn);
	return bytes;
}

/* So that what is verified is what the disk has, as far as the system lets go of its copy. */
static void forget_cached(const char *dir)
{
	char *path = NULL;
	int fd = asprintf(&path, "%s/" DATA_FILE, dir) < 0
			 ? -1
			 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
		close(fd);
	}
	free(path);
}

static int inspect_tables(struct segue_store *store, MDB_txn *txn, struct walk *walk)
{
	struct tally_record tally;

	int rc = get_tally(store, txn, 0, &tally);
	if (rc)
		return fail_lmdb(store, rc, "read");
	rc = read_free_pages(store, txn, walk);
	if (rc)
		return rc;
	for (int table = SEGUE_TABLE_META; !walk->stopped && table < SEGUE_TABLE_COUNT; table++)
		verify_table(store, txn, (enum segue_table)table, &tally, walk);
	if (walk->stopped)
		return walk->stopped;
	if (walk->overlaps && !walk->counts.damaged)
		table_damage(walk, SEGUE_TABLE_META, "pages in use are listed as free");
	if (walk->counts.damaged)
		return segue_fail(SEGUE_ESTORE,
			"%s is damaged in %llu places (%llu values are sound)" SEGUE_STORE_ADVICE,
			store->file, (unsigned long long)walk->counts.damaged,
			(unsigned long long)walk->counts.values);
	return 0;
}

int segue_store_inspect(const char *dir, const struct segue_store_inspection *inspection,
	struct segue_store_verified *verified)
{
	struct segue_store *store;
	struct walk walk = {
		.damage = inspection->damage ? inspection->damage : ignore_damage,
		.arg = inspection->arg,
		.inspection = inspection,
	};
	MDB_txn *txn;

	if (inspection->if_due)
		forget_cached(dir);
	int rc = store_open(dir, SEGUE_STORE_READ, false, &plainly, &store);
	if (rc)
		return rc;
	walk.counts.due = !store->was_clean && !store->same_boot;
	walk.progress = (struct segue_progress){.fn = inspection->progress,
		.arg = inspection->arg,
		.what = "verifying the store",
		.total = used_bytes(store)};
	if (!inspection->if_due || walk.counts.due) {
		rc = begin_snapshot(store, &txn);
		if (!rc) {
			rc = inspect_tables(store, txn, &walk);
			mdb_txn_abort(txn);
		} else {
			rc = fail_lmdb(store, rc, "read");
		}
	}
	*verified = walk.counts;
	free(walk.free_pages);
	segue_store_close(store);
	return rc;
}

int segue_store_verify(const char *dir, segue_store_damage_fn *damage, void *arg,
	struct segue_store_verified *verified)
{
	const struct segue_store_inspection inspection = {.damage = damage, .arg = arg};

	return segue_store_inspect(dir, &inspection, verified);
}

void segue_store_stats(const struct segue_store *store, struct segue_store_stats *stats)
{
	int fd;
	struct stat status = {0};
	if (mdb_env_get_fd(store->env, &fd) == 0 && fstat(fd, &status) < 0)
		status.st_size = 0;
	*stats = (struct segue_store_stats){
		.transactions = store->transactions,
		.bytes_put = store->bytes_put,
		.file_bytes = (uint64_t)status.st_size,
		.map_bytes = store->map_bytes,
		.used_bytes = used_bytes(store),
		.was_clean = store->was_clean,
		.same_boot = store->same_boot,
		.created_ns = store->format.created_ns,
		.lmdb_version = mdb_version(NULL, NULL, NULL),
	};
}
