/* Opening a store: locks, marks, creation, files and file systems that are refused. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store_fixture.h"

/* ---- Lock, marks, creation ------------------------------------------------------------------ */

Test(store, is_open_once)
{
	struct segue_store *store, *second;
	char other[SEGUE_TMPDIR_MAX], text[64];
	segue_tmpdir_path(&tmp, "other", other);
	store = open_store(SEGUE_STORE_SERVE);
	assert_fails(
		segue_store_open(dir, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "this process");
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &second), SEGUE_EBUSY, "this process");
	struct segue_store_verified verified;
	assert_fails(segue_store_verify(dir, NULL, NULL, &verified), SEGUE_EBUSY, "this process");
	assert_ok(segue_store_open(other, SEGUE_STORE_SERVE, &second));
	segue_store_close(second);
	segue_store_close(store);

	pid_t pid = start_holder(SEGUE_STORE_SERVE);
	snprintf(text, sizeof(text), "another segue server (pid %d) serves", (int)pid);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EBUSY, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_EBUSY, text);
	assert_ok(segue_store_verify(dir, NULL, NULL, &verified)); /* beside a server: allowed */
	kill_holder(pid);
	store = open_store(SEGUE_STORE_SERVE);
	expect_text(store, "held", "yes");
	segue_store_close(store);

	pid = start_holder(SEGUE_STORE_READ);
	assert_fails(
		segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EBUSY, "command reads");
	store = open_store(SEGUE_STORE_READ);
	segue_store_close(store);
	kill_holder(pid);
}

Test(store, says_how_the_last_server_ended)
{
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	segue_store_close(store);
	cr_assert_neq(access(segue_tmpdir_path(&tmp, "run/server.pid", file), F_OK), 0);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean && stats_of(store).same_boot);
	segue_store_close(store);
	for (int i = 0; i < 2; i++) {
		kill_holder(start_holder(SEGUE_STORE_SERVE));
		store = open_store(SEGUE_STORE_SERVE);
		cr_assert(!stats_of(store).was_clean && stats_of(store).same_boot);
		segue_store_close(store);
	}
	store = open_store(SEGUE_STORE_READ);
	cr_assert(stats_of(store).was_clean);
	segue_store_close(store);
}

static bool pretend_boot(const char *id)
{
	char path[SEGUE_TMPDIR_MAX];
	static bool alone;
	segue_tmpdir_path(&tmp, "boot", path);
	write_file(path, id, strlen(id));
	if (!alone)
		alone = unshare(CLONE_NEWNS) == 0 &&
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return alone && mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) == 0;
}

/* Until the file was verified, no start takes the machine's crash for a mere kill. */
Test(store, asks_for_trust_after_an_unclean_end_in_another_boot)
{
	if (!pretend_boot("00000000-0000-0000-0000-000000000001\n"))
		skip("cannot mount over /proc/sys/kernel/random/boot_id");
	kill_holder(start_holder(SEGUE_STORE_SERVE));
	cr_assert(pretend_boot("00000000-0000-0000-0000-000000000002\n"));
	for (int i = 0; i < 3; i++) { /* ended in order, killed, ended: all before a verification */
		struct segue_store *store = open_store(SEGUE_STORE_SERVE);
		cr_assert(!stats_of(store).was_clean && !stats_of(store).same_boot);
		segue_store_close(store);
		if (i == 1)
			kill_holder(start_holder(SEGUE_STORE_SERVE));
	}
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(segue_store_trust(store));
	assert_ok(segue_store_trust(store));
	segue_store_close(store);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean);
	segue_store_close(store);
	cr_assert(pretend_boot("00000000-0000-0000-0000-000000000003\n"));
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean && !stats_of(store).same_boot);
	segue_store_close(store);
	for (int i = 0; i < 3; i++)
		umount2("/proc/sys/kernel/random/boot_id", MNT_DETACH);
}

Test(store, removes_leftovers_of_a_killed_creation)
{
	char path[SEGUE_TMPDIR_MAX], kept[SEGUE_TMPDIR_MAX];
	struct segue_store *store;
	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "run/.store-12ab34cd.new", path), 0700), 0);
	write_file(segue_tmpdir_path(&tmp, "run/.store-12ab34cd.new/data.mdb", kept), "x", 1);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "run/.store-keep", kept), 0700), 0);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ENOTFOUND, "no store");
	cr_assert_eq(access(path, F_OK), 0, "only a server cleans up");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	cr_assert_neq(access(path, F_OK), 0);
	cr_assert_eq(access(kept, F_OK), 0);
	cr_assert_eq(access(file, F_OK), 0);
}

/* ---- Files that cannot be served ------------------------------------------------------------ */

static void refuse_file(int code, const char *text, const void *bytes, size_t size)
{
	uint8_t *after;
	struct segue_store *store;
	if (bytes)
		write_file(file, bytes, size);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), code, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), code, text);
	if (!bytes)
		return;
	cr_assert_eq(read_file(file, &after), size, "the file was changed");
	cr_assert_eq(memcmp(bytes, after, size), 0, "the file was changed");
	free(after);
}

Test(store, never_takes_a_torn_file_for_an_empty_store)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 8191};
	uint8_t *bytes;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		refuse_file(SEGUE_ESTORE, "store/data.mdb is damaged: it is cut short", bytes,
			sizes[i]);
	cr_assert_eq(unlink(file), 0);
	refuse_file(SEGUE_ESTORE, "data.mdb is missing", NULL, 0);
	write_file(file, bytes, size);
	store = open_store(SEGUE_STORE_SERVE);
	expect_text(store, "k", "v");
	segue_store_close(store);
	memset(bytes, 0, 8192);
	refuse_file(SEGUE_ESTORE, "the file is kept", bytes, size);
	free(bytes);
}

struct stored_header {
	uint32_t magic;
	uint16_t format, table;
	uint64_t length, sum;
};

/* The seal as store.h describes it: over 16 bytes of header, key and payload, all in a row. */
static uint64_t seal(const uint8_t *stored, const char *key, uint64_t length)
{
	uint8_t all[4096];
	size_t size = strlen(key);
	cr_assert_lt(16 + size + length, sizeof(all));
	memcpy(all, stored, 16);
	memcpy(all + 16, key, size);
	memcpy(all + 16 + size, stored + sizeof(struct stored_header), length);
	return XXH3_64bits(all, 16 + size + length);
}

Test(store, seals_values_as_documented)
{
	static const char text[] = "a payload that stands nowhere else";
	uint8_t *bytes;
	struct stored_header header;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "the key", text));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	uint8_t *payload = memmem(bytes, size, text, strlen(text));
	cr_assert_not_null(payload);
	memcpy(&header, payload - sizeof(header), sizeof(header));
	cr_assert_eq(memcmp(&header.magic, "SGV1", 4), 0);
	cr_assert_eq(header.format, SEGUE_STORE_FORMAT);
	cr_assert_eq(header.table, SEGUE_TABLE_STATES);
	cr_assert_eq(header.length, strlen(text));
	cr_assert_eq(header.sum, seal(payload - sizeof(header), "the key", header.length));
	free(bytes);
}

/* Changes the 32-bit word at `offset` of the stored format, wherever it lies, and seals it anew. */
static void patch_format(uint8_t *bytes, size_t size, size_t offset, uint32_t value)
{
	static const uint64_t magic = UINT64_C(0x65726f7473677331);
	struct stored_header header;
	size_t found = 0;
	for (size_t at = sizeof(header); at + 48 <= size; at++) {
		if (memcmp(bytes + at, &magic, sizeof(magic)) != 0)
			continue;
		uint8_t *stored = bytes + at - sizeof(header);
		memcpy(&header, stored, sizeof(header));
		memcpy(bytes + at + offset, &value, sizeof(value));
		header.sum = seal(stored, "store.format", header.length);
		memcpy(stored, &header, sizeof(header));
		found++;
	}
	cr_assert_gt(found, 0u);
}

Test(store, refuses_other_formats_and_machines)
{
	uint8_t *bytes, *copy;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	size_t size = read_file(file, &bytes);
	copy = malloc(size);
	cr_assert_not_null(copy);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 8, 5);
	refuse_file(SEGUE_EFORMAT, "has format 5; this program (0.1.0) knows formats up to 4", copy,
		size);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 8, 3);
	refuse_file(SEGUE_EFORMAT, "has format 3, of an earlier segue", copy, size);
	for (unsigned bit = 0; bit < 32; bit++) {
		memcpy(copy, bytes, size);
		patch_format(copy, size, 20, UINT32_C(1) << bit);
		refuse_file(SEGUE_EFORMAT, "requires what this version of segue (0.1.0) does not",
			copy, size);
	}
	memcpy(copy, bytes, size);
	patch_format(copy, size, 12, 4);
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 16, 65536);
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	memcpy(copy, bytes, size);
	copy[20] = 2; /* in the place of 1, the version of LMDB's format */
	refuse_file(SEGUE_EFORMAT, "another LMDB (format 2), which LMDB 0.9", copy, size);
	memcpy(copy, bytes, size);
	memmove(copy + 24, copy + 16, 4096 - 24); /* as LMDB 1.0: a page begins with 24 bytes */
	memset(copy + 16, 0, 8);
	copy[28] = 3;
	refuse_file(SEGUE_EFORMAT, "written by LMDB 1.0 (format 3), which LMDB 0.9", copy, size);
	refuse_file(SEGUE_EFORMAT, "backup DIR FILE --portable", copy, size);
	memcpy(copy, bytes, size);
	for (size_t at = 16; at <= 4096 + 16; at += 4096) {
		uint32_t magic;
		memcpy(&magic, copy + at, sizeof(magic));
		magic = __builtin_bswap32(magic);
		memcpy(copy + at, &magic, sizeof(magic));
	}
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	free(copy);
	free(bytes);
}

Test(store, lies_on_file_systems_of_one_machine_alone)
{
	/* Lustre, GPFS, BeeGFS, CephFS, FUSE, OCFS2, PanFS; and one that nobody knows */
	static const uint32_t shared[] = {NFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB_SUPER_MAGIC,
		0xfe534d42, V9FS_MAGIC, AFS_SUPER_MAGIC, AFS_FS_MAGIC, 0x0bd00bd0, 0x47504653,
		0x19830326, 0x00c36400, 0x65735546, 0x7461636f, 0xaad7aaea, 0x12345678};
	static const uint32_t local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
		F2FS_SUPER_MAGIC, 0x2fc12fc1, 0xca451a4e, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC};
	struct segue_store *store;
	unsetenv("SEGUE_ASSUME_LOCAL");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
		pretend_file_system = shared[i];
		assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM,
			"shared with other machines");
		assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ESYSTEM,
			"SEGUE_ASSUME_LOCAL=1");
		setenv("SEGUE_ASSUME_LOCAL", "0", 1);
		assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM, dir);
		setenv("SEGUE_ASSUME_LOCAL", "1", 1);
		segue_store_close(open_store(SEGUE_STORE_SERVE));
		unsetenv("SEGUE_ASSUME_LOCAL");
	}
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		pretend_file_system = local[i];
		segue_store_close(open_store(SEGUE_STORE_SERVE));
	}
	pretend_file_system = 0;
}

/* ---- What others put in the place of its files ---------------------------------------------- */

/* Every way to open it is refused, and says `text`. */
static void refuse_all(const char *text)
{
	struct segue_store_verified verified;
	struct segue_store *store;
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ESYSTEM, text);
	assert_fails(segue_store_verify(dir, NULL, NULL, &verified), SEGUE_ESYSTEM, text);
}

Test(store, follows_no_links)
{
	static const char *const names[] = {
		"run/store/data.mdb", "run/store/lock.mdb", "run/store"};
	char victim[SEGUE_TMPDIR_MAX], missing[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX],
		aside[SEGUE_TMPDIR_MAX];
	uint8_t *after;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	write_file(segue_tmpdir_path(&tmp, "victim", victim), "precious", 8);
	segue_tmpdir_path(&tmp, "missing", missing);
	segue_tmpdir_path(&tmp, "aside", aside);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *const targets[] = {victim, missing, aside};
		cr_assert_eq(rename(segue_tmpdir_path(&tmp, names[i], path), aside), 0);
		for (int t = 0; t < 3; t++) {
			cr_assert_eq(symlink(targets[t], path), 0);
			refuse_all("a symbolic link");
			cr_assert_eq(unlink(path), 0);
		}
		cr_assert_eq(rename(aside, path), 0);
	}
	cr_assert_neq(access(missing, F_OK), 0);
	cr_assert_eq(read_file(victim, &after), 8u);
	cr_assert_eq(memcmp(after, "precious", 8), 0);
	free(after);
	segue_store_close(open_store(SEGUE_STORE_SERVE));
}

Test(store, waits_for_no_fifo, .timeout = 30)
{
	static const char *const names[] = {"run/store/data.mdb", "run/store/lock.mdb"};
	char path[SEGUE_TMPDIR_MAX], aside[SEGUE_TMPDIR_MAX];
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	segue_tmpdir_path(&tmp, "aside", aside);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		cr_assert_eq(rename(segue_tmpdir_path(&tmp, names[i], path), aside), 0);
		cr_assert_eq(mkfifo(path, 0600), 0);
		refuse_all("no plain file");
		cr_assert_eq(unlink(path), 0);
		cr_assert_eq(rename(aside, path), 0);
	}
	cr_assert_eq(mkfifo(segue_tmpdir_path(&tmp, "run/server.pid", path), 0600), 0);
	cr_assert_eq(mkfifo(segue_tmpdir_path(&tmp, "run/suspect", path), 0600), 0);
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	cr_assert(!stats_of(store).was_clean, "a suspect is a suspect, whatever it is");
	fail_sync_with = EIO;
	assert_fails(segue_store_trust(store), SEGUE_ESTORE, "not known");
	segue_store_close(store);
}

/* The pid is for messages: what stands in its place is not written to. */
Test(store, writes_its_pid_to_a_file_of_its_own)
{
	char victim[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	uint8_t *after;
	write_file(segue_tmpdir_path(&tmp, "victim", victim), "precious", 8);
	cr_assert_eq(mkdir(dir, 0700), 0);
	segue_tmpdir_path(&tmp, "run/server.pid", path);
	for (int hard = 0; hard < 2; hard++) {
		cr_assert_eq(hard ? link(victim, path) : symlink(victim, path), 0);
		segue_store_close(open_store(SEGUE_STORE_SERVE));
		cr_assert_neq(access(path, F_OK), 0);
		cr_assert_eq(read_file(victim, &after), 8u);
		cr_assert_eq(memcmp(after, "precious", 8), 0);
		free(after);
	}
}

static int open_as_a_stranger(void *arg)
{
	struct segue_store *store;
	(void)arg;
	CHILD_CHECK(setresuid(4711, 4711, 4711) == 0);
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_READ, &store) == SEGUE_ESYSTEM);
	CHILD_CHECK(strstr(segue_error_detail(), "neither you nor root") != NULL);
	return 0;
}

Test(store, belongs_to_one_owner)
{
	char store_dir[SEGUE_TMPDIR_MAX], lock[SEGUE_TMPDIR_MAX];
	struct stat status;
	if (geteuid() != 0)
		skip("needs root");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	segue_tmpdir_path(&tmp, "run/store", store_dir);
	segue_tmpdir_path(&tmp, "run/store/lock.mdb", lock);
	cr_assert_eq(chown(lock, 12345, 12345), 0);
	refuse_all("lock.mdb belongs to user 12345");
	cr_assert_eq(chown(store_dir, 12345, 12345), 0);
	refuse_all("data.mdb belongs to user 0");
	/* All is another user's: root has that user's rights, and what it makes is theirs. */
	cr_assert_eq(chown(file, 12345, 12345), 0);
	cr_assert_eq(unlink(lock), 0);
	segue_store_close(open_store(SEGUE_STORE_READ));
	cr_assert_eq(setfsuid((uid_t)-1), 0, "root is itself again");
	cr_assert_eq(stat(lock, &status), 0);
	cr_assert_eq(status.st_uid, 12345u);
	/* Another user does not open it, whoever else has the directory above. */
	cr_assert_eq(chmod(tmp.root, 0755) | chmod(dir, 0777) | chmod(store_dir, 0777), 0);
	cr_assert_eq(chmod(file, 0666) | chmod(lock, 0666), 0);
	cr_assert_eq(run_child(open_as_a_stranger, NULL), 0);
	cr_assert_eq(chown(dir, 12345, 12345), 0);
	cr_assert_eq(run_child(open_as_a_stranger, NULL), 0);
	cr_assert_eq(chown(dir, 0, 0), 0);
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	cr_assert_eq(stat(file, &status), 0);
	cr_assert_eq(status.st_uid, 12345u);
}

/* As 'cp -al' leaves it: another directory, the same file. */
Test(store, is_open_once_by_whatever_name)
{
	char other[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], names[2][SEGUE_TMPDIR_MAX];
	struct segue_store *store, *second;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "other", other), 0700), 0);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "other/store", path), 0700), 0);
	cr_assert_eq(link(file, segue_tmpdir_path(&tmp, "other/store/data.mdb", names[0])), 0);
	cr_assert_eq(link(segue_tmpdir_path(&tmp, "run/store/lock.mdb", path),
			     segue_tmpdir_path(&tmp, "other/store/lock.mdb", names[1])),
		0);

	pid_t pid = start_holder(SEGUE_STORE_SERVE);
	assert_fails(segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY,
		"open under another name");
	assert_fails(segue_store_open(other, SEGUE_STORE_READ, &second), SEGUE_EBUSY,
		"open under another name");
	kill_holder(pid);
	pid = start_holder(SEGUE_STORE_READ);
	assert_fails(
		segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "command reads");
	kill_holder(pid);

	store = open_store(SEGUE_STORE_SERVE);
	assert_fails(
		segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "this process");
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	assert_ok(segue_store_open(other, SEGUE_STORE_SERVE, &second));
	expect_text(second, "k", "v");
	segue_store_close(second);
}

Test(store, on_a_read_only_disk_is_read_only)
{
	struct segue_store *store;
	bool root = geteuid() == 0;
	cr_assert_eq(mkdir(dir, 0700), 0);
	if (root && !mount_tmpfs(dir, "size=4m"))
		skip("cannot mount a tmpfs");
	store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	cr_assert_eq(
		root ? mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) : chmod(dir, 0500), 0);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EREADONLY, dir);
	store = open_store(SEGUE_STORE_READ);
	expect_text(store, "k", "v");
	segue_store_close(store);
	cr_assert_eq(root ? umount2(dir, MNT_DETACH) : chmod(dir, 0700), 0);
}
