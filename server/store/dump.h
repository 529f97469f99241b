/*
 * A store as one file that does not depend on LMDB's format: `segue backup --portable`.
 *
 *	head     "SEGUEBAK", u32 format, u32 format of the store whose keys and values these are,
 *	         u64 bits of what a reader must know
 *	block    u32 size > 0, u64 XXH3-64 of the bytes that follow, `size` bytes: whole records
 *	record   u8 table, u8 0, u16 key size, u32 value size, key, value
 *	end      u32 0, u64 XXH3-64 of the bytes that follow, u64 records, u64 bytes of their values
 *
 * Behind the values there can be records that are pieces of files (bit 1 of what a reader must
 * know): table SEGUE_DUMP_FILE, as key the file's name, as value its next bytes.
 *
 * Numbers are little-endian. Values are as the store checks and gives them, with the versions that
 * each carries; nothing comes after the end.
 */
#ifndef SEGUE_STORE_DUMP_H
#define SEGUE_STORE_DUMP_H

#include "store/store.h"

struct segue_dump;

/* In the place of a table: the value is a piece of a file, of the name that is the key. */
#define SEGUE_DUMP_FILE SEGUE_TABLE_COUNT

/* Begins one in the file `fd`, which is empty and stays the caller's. SEGUE_ENOMEM. */
int segue_dump_create(int fd, const char *name, struct segue_dump **out);
/* Adds a value, or (SEGUE_DUMP_FILE) a piece. SEGUE_ENOMEM, SEGUE_ENOSPACE, SEGUE_ESYSTEM. */
int segue_dump_put(struct segue_dump *dump, enum segue_table table, const void *key,
	size_t key_size, const void *value, size_t value_size);
/* Writes what is left and the end, and syncs. */
int segue_dump_end(struct segue_dump *dump);
/* Frees it; NULL is fine. */
void segue_dump_destroy(struct segue_dump *dump);

/*
 * Reads one from its beginning, and checks every block before it is visited. Of `reading` visit and
 * progress are used, visit also of pieces; pointers die when the visitor returns. `verified` has
 * values and bytes, without pieces.
 * SEGUE_EINVAL: it is none; SEGUE_EFORMAT: of another version; SEGUE_ESTORE: damaged, or cut short:
 * names the offset; and a result of `visit`.
 */
int segue_dump_read(int fd, const char *name, const struct segue_store_inspection *reading,
	struct segue_store_verified *verified);

#endif
