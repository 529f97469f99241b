/* A store in LMDB: made, opened, closed. */
#include "store/lmdb_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"

#define FORMAT_MAGIC UINT64_C(0x65726f7473677331)
#define MAP_MAX      (UINT64_C(1) << 40)
#define MAP_MIN      (UINT64_C(1) << 26)
#define FULL_MARGIN  UINT64_C(65536) /* a short write leaves less room than this */
#define READER_SLOTS 512             /* in LMDB's lock file, for all processes: 32 KiB */
#define READERS_MAX  48              /* of this process at once: a file has 126 slots at least */

_Static_assert(sizeof(size_t) == 8, "the map needs 64-bit addresses");

void segue_lmdb_read_boot(char boot[40])
{
	memset(boot, 0, 40);
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, boot, 36) != 36)
		memset(boot, 0, 40);
	close(fd);
}

bool segue_lmdb_is_full(MDB_env *env)
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

/* Opens what lies in store->store_fd, by that descriptor. A code. */
static int open_files(const struct segue_store *store, unsigned int flags, MDB_env *env)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", store->store_fd);
	segue_lmdb_act_as_owner(store, true);
	int rc = mdb_env_open(env, path, MDB_NOTLS | flags, 0600);
	segue_lmdb_act_as_owner(store, false);
	if (!rc)
		rc = mdb_env_get_fd(env, &fd);
	if (!rc)
		fcntl(fd, F_SETFD, FD_CLOEXEC); /* LMDB leaves it inheritable */
	return rc;
}

/* A map as large as the address space lets us have. A code. */
static int open_environment(struct segue_store *store, unsigned int flags, MDB_env **out)
{
	if (SEGUE_MUTANT(nosync))
		flags |= MDB_NOSYNC;
	if (SEGUE_MUTANT(nometasync))
		flags |= MDB_NOMETASYNC;
	if (SEGUE_MUTANT(writemap))
		flags |= MDB_WRITEMAP;
	for (uint64_t map = store->map_max;; map /= 2) {
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
			rc = open_files(store, flags, env);
		if (!rc) {
			*out = env;
			store->map_bytes = map;
			return 0;
		}
		mdb_env_close(env);
		if (rc != ENOMEM || map <= MAP_MIN)
			return rc;
	}
}

static int open_table(
	struct segue_store *store, MDB_txn *txn, enum segue_table table, unsigned int flags)
{
	int rc = mdb_dbi_open(txn, segue_table_name(table), flags, &store->tables[table]);

	return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int open_tables(struct segue_store *store, MDB_txn *txn, unsigned int flags)
{
	int rc = 0;

	for (int table = SEGUE_TABLE_META; !rc && table < SEGUE_TABLE_COUNT; table++)
		rc = open_table(store, txn, (enum segue_table)table, flags);
	return rc;
}

static int put_properties(struct segue_store *store, MDB_txn *txn)
{
	struct timespec now;
	struct segue_lmdb_format format = {
		.magic = FORMAT_MAGIC,
		.format = SEGUE_STORE_FORMAT,
		.pointer_size = sizeof(void *),
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
	};
	clock_gettime(CLOCK_REALTIME, &now);
	format.created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (getrandom(format.id, sizeof(format.id), 0) != sizeof(format.id))
		return errno;
	struct segue_lmdb_mark mark = {.clean = 1};
	struct segue_lmdb_tally tally = {0};
	segue_lmdb_read_boot(mark.boot);
	int rc = segue_lmdb_put_property(store, txn, SEGUE_LMDB_FORMAT, &format, sizeof(format));
	if (!rc)
		rc = segue_lmdb_put_property(store, txn, SEGUE_LMDB_MARK, &mark, sizeof(mark));
	if (!rc)
		rc = segue_lmdb_put_tally(store, txn, &tally);
	return rc;
}

/* A whole, empty store in an empty directory; closed again. A code. */
static int fill_new_store(struct segue_store *store)
{
	MDB_env *env;
	MDB_txn *txn;
	int rc = open_environment(store, 0, &env);
	if (rc)
		return rc;
	rc = mdb_txn_begin(env, NULL, 0, &txn);
	if (rc)
		goto close;
	rc = open_tables(store, txn, MDB_CREATE);
	if (!rc)
		rc = put_properties(store, txn);
	if (rc) {
		mdb_txn_abort(txn);
		goto close;
	}
	rc = mdb_txn_commit(txn);
	if (!rc)
		rc = mdb_env_sync(env, 1);
close:
	if (rc == EIO && segue_lmdb_is_full(env))
		rc = ENOSPC;
	mdb_env_close(env);
	return rc;
}

static int create_store(struct segue_store *store)
{
	char name[32];
	int rc = segue_lmdb_begin_creation(store, name);
	if (rc)
		return rc;
	rc = fill_new_store(store);
	if (rc == EIO) /* nothing was there that could be damaged */
		rc = segue_fail(SEGUE_ESYSTEM, "cannot create %s: %s", store->file, strerror(rc));
	else if (rc)
		rc = segue_lmdb_fail(store, rc, "create");
	else
		rc = segue_lmdb_settle_creation(store, name);
	if (rc)
		segue_lmdb_give_up_creation(store, name);
	return rc;
}

/* ---- Opening ---- */

/* LMDB itself would say that the file is none of its, or damaged. */
static int fail_other_lmdb(const struct segue_store *store, uint32_t version)
{
	return segue_fail(SEGUE_EFORMAT,
		"%s was written by %s (format %" PRIu32 "), which %s here cannot read: copy the "
		"store with 'segue backup DIR FILE --portable' where it was written, and "
		"'segue restore FILE DIR' here",
		store->file, version == 3 ? "LMDB 1.0" : "another LMDB", version,
		mdb_version(NULL, NULL, NULL));
}

/*
 * Looks at the head of the file before LMDB does: LMDB would turn an empty file into an empty
 * store, and take a file from a machine of another kind, or of another LMDB, for a damaged one.
 */
static int check_head(struct segue_store *store)
{
	static const uint32_t lmdb_magic = 0xBEEFC0DE, lmdb_version = 1;
	uint32_t words[8];
	struct stat status;
	if (pread(store->data_fd, words, sizeof(words), 0) < 0 ||
		fstat(store->data_fd, &status) < 0)
		return segue_lmdb_fail_file(store, "read", SEGUE_LMDB_DATA);
	if (status.st_size < 2 * sysconf(_SC_PAGESIZE))
		return segue_lmdb_fail_damaged(store, "it is cut short");
	uint32_t narrow = words[3], here = words[4]; /* 12 bytes of page header, or 16 */
	if (here == lmdb_magic)
		return words[5] == lmdb_version ? 0 : fail_other_lmdb(store, words[5]);
	if (words[6] == lmdb_magic) /* 24 bytes: LMDB 1.0, whose pages have a transaction, too */
		return fail_other_lmdb(store, words[7]);
	if (narrow == lmdb_magic || narrow == __builtin_bswap32(lmdb_magic) ||
		here == __builtin_bswap32(lmdb_magic))
		return segue_fail(SEGUE_EFORMAT,
			"%s was written on another kind of machine (byte order or word size): "
			"serve it there, or make a new store",
			store->file);
	return 0;
}

static int check_format(struct segue_store *store, MDB_txn *txn)
{
	struct segue_lmdb_format *format = &store->format;
	int rc = segue_lmdb_get_property(store, txn, SEGUE_LMDB_FORMAT, format,
		offsetof(struct segue_lmdb_format, pointer_size));
	if (rc)
		return segue_lmdb_fail(store, rc, "read the format of");
	if (format->magic != FORMAT_MAGIC)
		return segue_lmdb_fail_damaged(store, "what says its format is not there");
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
	rc = segue_lmdb_get_property(store, txn, SEGUE_LMDB_FORMAT, format, sizeof(*format));
	if (rc)
		return segue_lmdb_fail(store, rc, "read the format of");
	if (format->pointer_size != sizeof(void *) ||
		format->page_size != (uint32_t)sysconf(_SC_PAGESIZE))
		return segue_fail(SEGUE_EFORMAT,
			"%s was written on another kind of machine: pointers of %u bytes, pages of "
			"%u, here %zu and %ld: serve it there, or make a new store",
			store->file, format->pointer_size, format->page_size, sizeof(void *),
			sysconf(_SC_PAGESIZE));
	return segue_required_check(store->file, format->required);
}

/* The format first: another has other tables. */
static int read_properties(struct segue_store *store, MDB_txn *txn)
{
	struct segue_lmdb_mark mark;
	struct segue_lmdb_tally tally;
	char boot[40];
	int rc = open_table(store, txn, SEGUE_TABLE_META, 0);
	if (rc)
		return segue_lmdb_fail(store, rc, "open the tables of");
	rc = check_format(store, txn);
	if (rc)
		return rc;
	rc = open_tables(store, txn, 0);
	if (rc)
		return segue_lmdb_fail(store, rc, "open the tables of");
	rc = segue_lmdb_get_property(store, txn, SEGUE_LMDB_MARK, &mark, sizeof(mark));
	if (!rc)
		rc = segue_lmdb_get_tally(store, txn, 0, &tally);
	if (rc)
		return segue_lmdb_fail(store, rc, "read the marks of");
	bool suspect =
		faccessat(store->dir_fd, SEGUE_STORE_SUSPECT, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	segue_lmdb_read_boot(boot);
	store->was_clean = mark.clean != 0 && !suspect;
	store->same_boot = !suspect && boot[0] && memcmp(boot, mark.boot, sizeof(boot)) == 0;
	return 0;
}

/* That LMDB has the very file whose lock we hold. */
static int check_identity(const struct segue_store *store)
{
	int fd;
	struct stat status;
	if (mdb_env_get_fd(store->env, &fd) == 0 && fstat(fd, &status) == 0 &&
		status.st_ino == store->data.inode && status.st_dev == store->data.device)
		return 0;
	return segue_fail(
		SEGUE_ESYSTEM, "%s was exchanged while it was opened: try again", store->file);
}

static int open_existing(struct segue_store *store)
{
	int rc = check_head(store);
	if (rc)
		return rc;
	rc = open_environment(store, store->mode == SEGUE_STORE_READ ? MDB_RDONLY : 0, &store->env);
	if (rc)
		return segue_lmdb_fail(store, rc, "open");
	rc = check_identity(store);
	if (rc)
		return rc;
	MDB_txn *txn;
	rc = segue_lmdb_snapshot(store, &txn);
	if (rc)
		return segue_lmdb_fail(store, rc, "read");
	rc = read_properties(store, txn);
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	rc = mdb_txn_commit(txn); /* keeps the handles of the tables */
	return rc ? segue_lmdb_fail(store, rc, "read") : 0;
}

static int open_to_serve(struct segue_store *store, const struct segue_store_serving *serving)
{
	int dead;
	int rc = segue_lmdb_sweep(store);
	if (rc)
		return rc;
	rc = segue_lmdb_open_files(store);
	if (rc == SEGUE_ENOTFOUND) {
		rc = create_store(store);
		if (!rc)
			rc = segue_lmdb_open_files(store);
	} else if (!rc && serving->check) {
		rc = serving->check(serving->arg);
	}
	if (!rc)
		rc = open_existing(store);
	if (rc)
		return rc;
	mdb_reader_check(store->env, &dead);
	return store->was_clean || store->same_boot ? segue_lmdb_write_mark(store, false) : 0;
}

static int open_to_read(struct segue_store *store, bool uncached)
{
	int rc = segue_lmdb_open_files(store);
	if (rc)
		return rc;
	if (uncached) { /* as far as the system lets go of its copy */
		posix_fadvise(store->data_fd, 0, 0, POSIX_FADV_DONTNEED);
		posix_fadvise(store->data_fd, 0, 0, POSIX_FADV_WILLNEED);
	}
	return open_existing(store);
}

int segue_lmdb_open(
	const char *dir, const struct segue_lmdb_opening *opening, struct segue_store **out)
{
	static const struct segue_store_serving plainly;
	const struct segue_store_serving *serving = opening->serving ? opening->serving : &plainly;
	struct segue_store *store = calloc(1, sizeof(*store));
	if (!store)
		return segue_fail(SEGUE_ENOMEM, "no memory to open the store of %s", dir);
	store->mode = opening->mode;
	store->map_max = serving->map_bytes ? serving->map_bytes : MAP_MAX;
	store->dir_fd = store->store_fd = store->data_fd = -1;
	pthread_mutex_init(&store->pin_lock, NULL);
	sem_init(&store->readers, 0, READERS_MAX);
	store->dir = strdup(dir);
	store->named = strdup(serving->named ? serving->named : dir);
	int rc = 0;
	if (!store->dir || !store->named ||
		asprintf(&store->file, "%s/" SEGUE_LMDB_DATA, dir) < 0) {
		store->file = NULL;
		rc = segue_fail(SEGUE_ENOMEM, "no memory to open the store of %s", dir);
	}
	if (!rc)
		rc = segue_lmdb_open_directory(store, !opening->unlocked);
	if (!rc)
		rc = store->mode == SEGUE_STORE_SERVE ? open_to_serve(store, serving)
						      : open_to_read(store, opening->uncached);
	if (rc) {
		if (!opening->unlocked && !store->failed)
			rc = segue_lmdb_advise(rc);
		segue_store_close(store);
		return rc;
	}
	*out = store;
	return 0;
}

int segue_store_open(const char *dir, enum segue_store_mode mode, struct segue_store **out)
{
	return segue_lmdb_open(dir, &(struct segue_lmdb_opening){.mode = mode}, out);
}

int segue_store_serve(
	const char *dir, const struct segue_store_serving *serving, struct segue_store **out)
{
	const struct segue_lmdb_opening opening = {.mode = SEGUE_STORE_SERVE, .serving = serving};

	return segue_lmdb_open(dir, &opening, out);
}

void segue_store_close(struct segue_store *store)
{
	if (!store)
		return;
	if (store->trusted && !store->failed) /* if it fails the end is not marked as clean */
		segue_lmdb_write_mark(store, true);
	if (store->env) {
		segue_lmdb_unpin(store);
		mdb_env_close(store->env);
	}
	pthread_mutex_destroy(&store->pin_lock);
	sem_destroy(&store->readers);
	segue_lmdb_close_directory(store);
	free(store->dir);
	free(store->named);
	free(store->file);
	free(store);
}

uint64_t segue_lmdb_used_bytes(const struct segue_store *store)
{
	MDB_txn *txn;
	uint64_t bytes = 0;
	if (segue_lmdb_snapshot(store, &txn))
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
		.used_bytes = segue_lmdb_used_bytes(store),
		.was_clean = store->was_clean,
		.same_boot = store->same_boot,
		.created_ns = store->format.created_ns,
		.lmdb_version = mdb_version(NULL, NULL, NULL),
	};
}
