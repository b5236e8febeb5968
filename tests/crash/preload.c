// Notes down, in order, each change that a process makes to the files below a folder, and each flush, so that power.py can
// tell what a disk may have after a power cut. Kills the process instead of a given change, lets some of them fail, or has
// only so much space.
//
// CRASH_FOLDER: whose changes count, a real path. CRASH_NOTES: where they are noted. CRASH_AT: the number of the change that
// is not made any more. CRASH_EIO: how many writes (CRASH_EIO_OF=W) or flushes (S) work before one fails; with CRASH_HEALED
// all fail from there on until there is a file of that name, and with CRASH_EIO_HIDDEN nobody is told. CRASH_SPACE: a file with the bytes
// that the disk has, and those that others use.
// No flush is passed on: the disk is disk.py's affair. Names that end in -shm are left out: that is shared memory, made anew
// at each start.
//
// A note: its kind, the lengths of two texts (u32), offset and size (i64), then the texts: a path, and what was written or
// the new path. Build: cc -shared -fPIC -o preload.so preload.c -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *healed, *space;
static int notes = -1;
static long changes, fatal_change, tries, failing_try;
static char failing_kind;
static int is_hidden;
static int64_t used;

static int counts(const char *path);

static int weigh(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)where;
    if (type == FTW_F && counts(path)) used += status->st_size;
    return 0;
}

__attribute__((constructor)) static void start(void) {
    const char *fatal = getenv("CRASH_AT"), *failing = getenv("CRASH_EIO"), *kind = getenv("CRASH_EIO_OF");
    fatal_change = fatal ? atol(fatal) : 0;
    failing_try = failing ? atol(failing) : 0;
    failing_kind = kind ? kind[0] : 'S';
    healed = getenv("CRASH_HEALED");
    is_hidden = getenv("CRASH_EIO_HIDDEN") != NULL;
    notes = REAL(open)(getenv("CRASH_NOTES"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    folder = notes < 0 ? NULL : getenv("CRASH_FOLDER");
    space = getenv("CRASH_SPACE");
    if (folder && space) nftw(folder, weigh, 16, FTW_PHYS);
}

// Whether a write (W) or a flush (S) is to fail.
static int fails(char kind) {
    if (kind != failing_kind || !failing_try) return 0;
    tries++;
    return tries == failing_try || (tries > failing_try && healed && REAL(access)(healed, F_OK));
}

// How many bytes of the disk are free, and how many it has in all.
static int64_t left_of(long long *whole) {
    char text[64] = "";
    long long others;
    int fd = REAL(open)(space, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || REAL(read)(fd, text, sizeof text - 1) < 0 || sscanf(text, "%lld %lld", whole, &others) != 2) abort();
    close(fd);
    return *whole - others > used ? *whole - others - used : 0;
}

static int64_t size_of(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_size;
}

// How many of these bytes the disk takes: those that make a file no longer are always taken.
static size_t room(int fd, int64_t offset, size_t length) {
    long long whole;
    int64_t grows = offset + (int64_t)length - size_of(fd);
    int64_t lacks = space && grows > 0 ? grows - left_of(&whole) : 0;
    return lacks <= 0 ? length : lacks < (int64_t)length ? length - lacks : 0;
}

static int counts(const char *path) {
    size_t length = strlen(path), prefix = folder ? strlen(folder) : 0;
    return folder && !strncmp(path, folder, prefix) && (path[prefix] == '/' || !path[prefix]) &&
           (length < 4 || strcmp(path + length - 4, "-shm"));
}

// The present path of what is open, if its changes count; sockets and pipes are sorted out first, as they are many.
static int path_of(int fd, char *path) {
    struct stat status;
    if (!folder || fstat(fd, &status) || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return counts(path);
}

static int path_at(int at, const char *name, char *path) {
    char parent[PATH_MAX] = "";
    if (name[0] == '/' || at == AT_FDCWD) return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && counts(path);
    return path_of(at, parent) && snprintf(path, PATH_MAX, "%s/%s", parent, name) < PATH_MAX && counts(path);
}

// One change begins: nobody else makes one until it is noted. It may be one too many.
static void begin(int counted) {
    pthread_mutex_lock(&lock);
    if (!counted || ++changes != fatal_change) return;
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void note(char kind, const char *path, const void *text, size_t length, int64_t offset, int64_t size) {
    struct __attribute__((packed)) { char kind; uint32_t path, text; int64_t offset, size; } head = {
        kind, strlen(path), length, offset, size };
    struct iovec parts[] = { { &head, sizeof head }, { (void *)path, head.path }, { (void *)text, length } };
    if (REAL(writev)(notes, parts, 3) != (ssize_t)(sizeof head + head.path + length)) abort();
}

static long end(long result) {
    int kept = errno;
    pthread_mutex_unlock(&lock);
    errno = kept;
    return result;
}

static int open_at(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat status;
    if (!(flags & (O_CREAT | O_TRUNC)) || !path_at(at, name, path)) return REAL(openat)(at, name, flags, mode);
    int is_new = stat(path, &status) != 0, changed = is_new || flags & O_TRUNC;
    begin(changed);
    int fd = REAL(openat)(at, name, flags, mode);
    if (fd >= 0 && changed) note(is_new ? 'C' : 'T', path, "", 0, 0, 0);
    return end(fd);
}

#define OPEN(name, parameters, at) int name parameters { \
    va_list rest; va_start(rest, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); return open_at(at, path, flags, mode); }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(openat64, (int at, const char *path, int flags, ...), at)

// `call` writes, at `place` or where the file stands if that is negative.
#define WRITE(name, parameters, call, data, place) ssize_t name parameters { \
    char path[PATH_MAX]; \
    if (!path_of(fd, path)) return REAL(name) call; \
    begin(1); \
    int64_t offset = place; \
    if (offset < 0) offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR); \
    if (fails('W')) { errno = EIO; return end(is_hidden ? (ssize_t)n : -1); } \
    size_t wanted = n; \
    n = room(fd, offset, n); \
    if (wanted && !n) { errno = ENOSPC; return end(-1); } \
    int64_t size = size_of(fd); \
    ssize_t written = REAL(name) call; \
    used += size_of(fd) - size; \
    if (written > 0) note('W', path, data, written, offset, 0); \
    return end(written); }
WRITE(write, (int fd, const void *data, size_t n), (fd, data, n), data, -1)
WRITE(pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at), data, at)
WRITE(pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at), data, at)

#define RESIZE(name, type) int name(int fd, type size) { \
    char path[PATH_MAX]; \
    if (!path_of(fd, path)) return REAL(name)(fd, size); \
    begin(1); \
    int64_t before = size_of(fd); \
    int result = REAL(name)(fd, size); \
    used += size_of(fd) - before; \
    if (!result) note('T', path, "", 0, 0, size); \
    return end(result); }
RESIZE(ftruncate, off_t)
RESIZE(ftruncate64, off64_t)

static int flush(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd);
    begin(1);
    int fail = fails('S');
    note(fail ? 'F' : 'S', path, "", 0, 0, 0);
    if (fail) errno = EIO;
    return end(fail && !is_hidden ? -1 : 0);
}
int fsync(int fd) { return flush(fd, REAL(fsync)); }
int fdatasync(int fd) { return flush(fd, REAL(fdatasync)); }

// What changes a folder: `kind` is noted with the path, and with the new one where there is one.
#define ENTRY(name, parameters, call, kind, at, from, to) int name parameters { \
    char path[PATH_MAX]; \
    if (!path_at(at, from, path)) return REAL(name) call; \
    begin(1); \
    struct stat status; \
    int64_t size = kind == 'U' && !lstat(path, &status) && S_ISREG(status.st_mode) ? status.st_size : 0; \
    int result = REAL(name) call; \
    if (!result) used -= size; \
    if (!result) note(kind, path, to, strlen(to), 0, 0); \
    return end(result); }
ENTRY(mkdir, (const char *path_, mode_t mode), (path_, mode), 'M', AT_FDCWD, path_, "")
ENTRY(rename, (const char *old, const char *new), (old, new), 'R', AT_FDCWD, old, new)
ENTRY(renameat2, (int at, const char *old, int to, const char *new, unsigned flags), (at, old, to, new, flags), 'R', at, old, new)
ENTRY(unlink, (const char *path_), (path_), 'U', AT_FDCWD, path_, "")
ENTRY(rmdir, (const char *path_), (path_), 'U', AT_FDCWD, path_, "")
ENTRY(unlinkat, (int at, const char *path_, int flags), (at, path_, flags), 'U', at, path_, "")

#define FREE(name, parameters, call) int name parameters { \
    int result = REAL(name) call; \
    if (result || !folder || !space) return result; \
    long long whole; \
    found->f_bfree = found->f_bavail = left_of(&whole); \
    found->f_blocks = whole; \
    found->f_bsize = found->f_frsize = 1; \
    return result; }
FREE(statvfs, (const char *path, struct statvfs *found), (path, found))
FREE(statvfs64, (const char *path, struct statvfs64 *found), (path, found))

// Calls that nobody makes on these files so far; one that comes to be made must be noted, not lost.
#define NEVER(name, parameters, call) ssize_t name parameters { \
    char path[PATH_MAX]; \
    if (path_of(fd, path)) abort(); \
    return REAL(name) call; }
NEVER(writev, (int fd, const struct iovec *parts, int n), (fd, parts, n))
NEVER(pwritev, (int fd, const struct iovec *parts, int n, off_t at), (fd, parts, n, at))
NEVER(pwritev64, (int fd, const struct iovec *parts, int n, off64_t at), (fd, parts, n, at))
