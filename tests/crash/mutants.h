/*
 * Mutants of store and log: each breaks one rule that the promises of power loss rest on, and the
 * replay of crash images must see it.
 *
 * They are branches on SEGUE_MUTANT(name) in the files that ship, gone from every build but those of
 * crash_mutants and crash_log_mutants. TRACE_LIES (trace.h) are the disk's, and each script has
 * mistakes of its own.
 */
#ifndef SEGUE_CRASH_MUTANTS_H
#define SEGUE_CRASH_MUTANTS_H

/* X(name, what is wrong) */
#define CODE_MUTANTS(X)                                                                            \
	X(nosync, "LMDB does not sync (MDB_NOSYNC)")                                               \
	X(nometasync, "LMDB does not sync its meta page (MDB_NOMETASYNC)")                         \
	X(writemap, "LMDB writes through its map (MDB_WRITEMAP)")                                  \
	X(above_not_synced, "the name of the new store's directory is not synced")                 \
	X(created_in_place, "the store is created without a rename")                               \
	X(state_left_out, "the last state of a row is left out of its value")                      \
	X(rows_not_dropped, "rows whose sequence ended stay in the table")                         \
	X(sum_not_checked, "the checksum of a value is not checked")                               \
	X(key_not_in_sum, "the value of another key is taken")                                     \
	X(tally_not_checked, "a value that is not the newest is taken")                            \
	X(goes_on_after_failure, "the store is written to after a failed write")

#define LOG_MUTANTS(X)                                                                             \
	X(headers_alone, "headers of entries are checked, their blocks are not")                   \
	X(serials_not_kept, "a new file does not say what producers inserted before it")           \
	X(foot_not_synced, "the next file is begun before the foot of the last is synced")         \
	X(head_not_synced, "a file has its name before its head is synced")                        \
	X(name_not_synced, "entries are acknowledged before the name of their file is synced")

#endif
