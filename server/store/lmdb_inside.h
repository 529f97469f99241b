/*
 * The inside of a store in LMDB, for lmdb*.c alone.
 *
 * One environment, one named database a table, LMDB's default (full) sync; never WRITEMAP, NOSYNC
 * or NOMETASYNC. LMDB itself detects almost no damage: each value is sealed with a checksum, and a
 * tally a table (count and sum of the seals), written in every transaction, tells values that are
 * missing or are of another time.
 *
 *	lmdb.c ──► lmdb_directory.c         the directory, its lock, its files
 *	  │
 *	  ├──► lmdb_write.c ──┐
 *	  └──► lmdb_verify.c  ├──► lmdb_value.c
 *	           └──► lmdb_read.c ──┘
 *
 * Functions without a word on it return 0 or what an error means to the caller of the store; those
 * that say "a code" return 0 or an LMDB code (an errno or MDB_*), and set no detail.
 */
#ifndef SEGUE_STORE_LMDB_INSIDE_H
#define SEGUE_STORE_LMDB_INSIDE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>

#include <lmdb.h>

#include "store/store.h"

#define SEGUE_LMDB_DIR  "store"
#define SEGUE_LMDB_DATA SEGUE_LMDB_DIR "/data.mdb"
#define SEGUE_LMDB_LOCK SEGUE_LMDB_DIR "/lock.mdb"

/* ---- What is stored (lmdb_value.c) ---- */

/* Before each payload. `sum` is XXH3-64 over the fields before it, the key and the payload. */
struct segue_lmdb_header {
	uint32_t magic;
	uint16_t format;
	uint16_t table;
	uint64_t length;
	uint64_t sum;
};
_Static_assert(sizeof(struct segue_lmdb_header) == 24, "stored");

/*
 * The store's own properties: values of META under names that are reserved, sealed like all values,
 * but not counted in the tally.
 */
#define SEGUE_LMDB_FORMAT SEGUE_STORE_RESERVED "format"
#define SEGUE_LMDB_MARK   SEGUE_STORE_RESERVED "mark"
#define SEGUE_LMDB_TALLY  SEGUE_STORE_RESERVED "tally"

/* Written once. The first two fields stay in all later formats. */
struct segue_lmdb_format {
	uint64_t magic; /* in the machine's byte order */
	uint32_t format;
	uint32_t pointer_size;
	uint32_t page_size;
	uint32_t required; /* bits of what a reader must know; of all formats from 4 on */
	uint64_t created_ns;
	uint8_t id[16];
};
_Static_assert(sizeof(struct segue_lmdb_format) == 48, "stored");

/* In which boot the file was last known to be whole, and how it was left. */
struct segue_lmdb_mark {
	char boot[40];
	uint64_t clean;
};
_Static_assert(sizeof(struct segue_lmdb_mark) == 48, "stored");

/*
 * Per table the number of values and the sum of their seals. Written in every transaction, with its
 * number: a root of the past in the place of the present one is seen so.
 */
struct segue_lmdb_tally {
	uint64_t transaction; /* LMDB's number of it */
	struct {
		uint64_t count, sums;
	} tables[SEGUE_TABLE_COUNT];
};
_Static_assert(sizeof(struct segue_lmdb_tally) == 152, "stored");

struct segue_store {
	struct segue_store *next; /* among those that this process has open */
	struct segue_lmdb_file {
		dev_t device;
		ino_t inode;
	} directory, folder, data; /* <dir> and data.mdb: this process opens them but once */
	int dir_fd, store_fd,
		data_fd; /* <dir>, which is locked; <dir>/store; data.mdb, locked too */
	uid_t owner;     /* of <dir>/store */
	gid_t group;
	enum segue_store_mode mode;
	bool claimed, locked;
	char *dir;   /* as given */
	char *named; /* how others name it: where it must be found */
	char *file;  /* <dir>/store/data.mdb, for messages */
	MDB_env *env;
	MDB_dbi tables[SEGUE_TABLE_COUNT];
	uint64_t map_max, map_bytes;
	struct segue_lmdb_format format;
	bool was_clean, same_boot;
	bool trusted; /* the mark on disk is of this boot */
	pthread_mutex_t pin_lock;
	MDB_txn *pin;  /* a snapshot from before the write that is under way, or that failed */
	sem_t readers; /* that may still begin; none waits for the writer while it reads */
	atomic_bool failed;
	atomic_uint_fast64_t transactions, bytes_put;
};

/* For functions of store.h: a message about damage ends with what can be done. Returns rc. */
int segue_lmdb_advise(int rc);
/* What a code means. */
int segue_lmdb_fail(const struct segue_store *store, int code, const char *doing);
/* SEGUE_ESTORE. */
int segue_lmdb_fail_damaged(const struct segue_store *store, const char *what);
int segue_lmdb_fail_value(const struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, const char *why);
/* SEGUE_ENOTFOUND. */
int segue_lmdb_fail_missing(enum segue_table table, const void *key, size_t key_size);

/* SEGUE_EINVAL: there is no such table, or such a key. */
int segue_lmdb_check_key(enum segue_table table, const void *key, size_t size);
/* True of the store's own properties; or, of a prefix, if it would take those in. */
bool segue_lmdb_is_reserved(enum segue_table table, bool prefix, const void *key, size_t size);

static inline bool segue_lmdb_has_prefix(const MDB_val *key, const void *prefix, size_t size)
{
	return key->mv_size >= size && (size == 0 || memcmp(key->mv_data, prefix, size) == 0);
}

/*
 * mdb_get() and mdb_cursor_get(), but that what is not found is empty: on a damaged page they may
 * say that all went well and leave `data` as it was. A code.
 */
int segue_lmdb_get(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *data);
int segue_lmdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *data, MDB_cursor_op where);

/* Why the stored value is not what was written under this key, or NULL. Fills the header. */
const char *segue_lmdb_check_value(enum segue_table table, const void *key, size_t key_size,
	const MDB_val *data, struct segue_lmdb_header *header);
/* Stores a sealed value; `sum` gets its seal. A code. */
int segue_lmdb_put_value(
	struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op, uint64_t *sum);

/* A code. One that is not there or not whole is MDB_CORRUPTED. */
int segue_lmdb_get_property(
	struct segue_store *store, MDB_txn *txn, const char *name, void *property, size_t size);
int segue_lmdb_put_property(struct segue_store *store, MDB_txn *txn, const char *name,
	const void *property, size_t size);
/* The tally as the last transaction left it; `ago`: 0 in a snapshot, 1 in a transaction. A code. */
int segue_lmdb_get_tally(
	struct segue_store *store, MDB_txn *txn, uint64_t ago, struct segue_lmdb_tally *tally);
int segue_lmdb_put_tally(struct segue_store *store, MDB_txn *txn, struct segue_lmdb_tally *tally);

/* ---- The directory (lmdb_directory.c) ---- */

/* A system call on `what` in the directory failed, and says so in errno. */
int segue_lmdb_fail_file(const struct segue_store *store, const char *doing, const char *what);

/* Opens store->dir, makes it if it is to be served; takes its lock, if `locked`; once a process. */
int segue_lmdb_open_directory(struct segue_store *store, bool locked);
/*
 * Opens <dir>/store and data.mdb, and takes the lock of the latter, which belongs to the file, by
 * whatever name it is found. What is no plain file, or not the owner's, is refused, SEGUE_ESYSTEM,
 * before LMDB sees it. SEGUE_ENOTFOUND: there is no store.
 */
int segue_lmdb_open_files(struct segue_store *store);
/* Root takes the rights of the store's owner, while LMDB opens files by name; and its own again. */
void segue_lmdb_act_as_owner(const struct segue_store *store, bool begin);
/* Closes all, and lets go of the locks. */
void segue_lmdb_close_directory(struct segue_store *store);
/* Removes what creations that were killed left behind. The lock is held: none is at work. */
int segue_lmdb_sweep(struct segue_store *store);
/* An empty directory under a temporary name, for a store that is made: store->store_fd. */
int segue_lmdb_begin_creation(struct segue_store *store, char name[32]);
/* What is in it is a store: on disk, under its name, when this returns. */
int segue_lmdb_settle_creation(struct segue_store *store, const char *name);
/* Best effort: what stays is looked at by the next start. */
void segue_lmdb_give_up_creation(struct segue_store *store, const char *name);

/* ---- Opening (lmdb.c) ---- */

struct segue_lmdb_opening {
	enum segue_store_mode mode;
	bool unlocked;                             /* to look at a store beside its server */
	bool uncached;                             /* what the disk has, not the system's copy */
	const struct segue_store_serving *serving; /* or NULL */
};
int segue_lmdb_open(
	const char *dir, const struct segue_lmdb_opening *opening, struct segue_store **out);
void segue_lmdb_read_boot(char boot[40]);
/* LMDB reports a short write as EIO: was there no room? */
bool segue_lmdb_is_full(MDB_env *env);
/* Bytes of the pages that hold the tables. */
uint64_t segue_lmdb_used_bytes(const struct segue_store *store);

/* ---- Reading (lmdb_read.c) ---- */

/* A snapshot; a code. Where there is no slot, those of dead processes are freed. */
int segue_lmdb_snapshot(const struct segue_store *store, MDB_txn **txn);

/* A walk over tables in order of their keys. */
struct segue_lmdb_walk {
	/* Of each sound value, the store's own properties too. A result that is not 0 ends it. */
	int (*visit)(struct segue_lmdb_walk *walk, enum segue_table table, const MDB_val *key,
		const struct segue_lmdb_header *header, const void *payload);
	/* Why an entry is damaged, or NULL; `why` is what its value says. May be NULL. */
	const char *(*examine)(struct segue_lmdb_walk *walk, enum segue_table table, MDB_val *key,
		const MDB_val *data, const char *why);
	segue_store_damage_fn *damage; /* NULL: the first ends it */
	void *arg;                     /* of `damage` */
	uint64_t damaged;
	unsigned char last[SEGUE_STORE_KEY_MAX]; /* the key before */
	size_t last_size;
};
/* All entries from `from` on that begin as it does in `prefix_size` bytes. */
int segue_lmdb_walk_table(struct segue_store *store, MDB_txn *txn, enum segue_table table,
	const MDB_val *from, size_t prefix_size, struct segue_lmdb_walk *walk);

/* ---- Writing (lmdb_write.c) ---- */

int segue_lmdb_write_mark(struct segue_store *store, bool clean);
void segue_lmdb_unpin(struct segue_store *store);

#endif
