/* A layer between a process and the C library that writes down, in order, what it does to files and what it sends.
 *
 *     cc -shared -fPIC -O1 -o wiretap.so wiretap.c -ldl
 *     WIRETAP=TRACE WIRETAP_UNDER=DIRECTORY LD_PRELOAD=./wiretap.so program
 *
 * Only files under DIRECTORY and sockets are written down. A record is
 *
 *     kind (1 byte), offset (8), path length (4), data length (4), path, data; numbers little-endian
 *
 * with kind W (written), T (truncated to offset), D (removed), F (fsync or fdatasync has RETURNED, of a file or of the
 * directory), and S (a send is ABOUT TO BEGIN, to the peer whose port stands in offset). So an F before an S is a file
 * that was on the disk before the first byte left. Records are appended under one lock, in an order that all threads
 * agree on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char under[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("WIRETAP"), *directory = getenv("WIRETAP_UNDER");
  if (!path || !directory || !realpath(directory, under)) return;
  trace = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  unsetenv("LD_PRELOAD"); /* what this process starts is not of interest */
}

static void put(const struct iovec *parts, int count) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++) {
    const char *at = parts[i].iov_base;
    size_t left = parts[i].iov_len;
    while (left) {
      long done = syscall(SYS_write, trace, at, left);
      if (done <= 0) abort();
      at += done, left -= (size_t)done;
    }
  }
  pthread_mutex_unlock(&lock);
}

static void note(char kind, int64_t offset, const char *path, const struct iovec *data, int count) {
  struct iovec parts[IOV_MAX];
  char head[17];
  uint32_t path_size = (uint32_t)strlen(path), size = 0;
  if (count > IOV_MAX - 2) abort();
  for (int i = 0; i < count; i++) size += (uint32_t)data[i].iov_len, parts[i + 2] = data[i];
  head[0] = kind;
  memcpy(head + 1, &offset, 8), memcpy(head + 9, &path_size, 4), memcpy(head + 13, &size, 4);
  parts[0] = (struct iovec){head, sizeof head}, parts[1] = (struct iovec){(void *)path, path_size};
  put(parts, count + 2);
}

/* The name of what a descriptor stands for, if it is one of the files that are watched. */
static int watched(int fd, char *name) {
  char link[64];
  size_t size = strlen(under);
  if (trace < 0 || fd == trace) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, name, PATH_MAX - 1);
  if (length < 0) return 0;
  name[length] = 0;
  return !strncmp(name, under, size) && (name[size] == '/' || !name[size]);
}

static void sends(int fd, const struct iovec *parts, int count) {
  struct stat found;
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  if (trace < 0 || fstat(fd, &found) || !S_ISSOCK(found.st_mode)) return;
  if (getpeername(fd, (struct sockaddr *)&peer, &size) || peer.sin_family != AF_INET) return;
  note('S', ntohs(peer.sin_port), "", parts, count);
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t wrote(int fd, const void *data, ssize_t done, int64_t offset) {
  char name[PATH_MAX];
  if (done > 0 && watched(fd, name)) {
    struct iovec part = {(void *)data, (size_t)done};
    note('W', offset, name, &part, 1);
  }
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
  return wrote(fd, data, real(fd, data, size, offset), offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  return wrote(fd, data, real(fd, data, size, offset), offset);
}

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  struct iovec part = {(void *)data, size};
  sends(fd, &part, 1);
  off_t offset = lseek(fd, 0, SEEK_CUR);
  return wrote(fd, data, real(fd, data, size), offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  sends(fd, parts, count);
  return real(fd, parts, count);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  REAL(ssize_t, send, int, const void *, size_t, int);
  struct iovec part = {(void *)data, size};
  sends(fd, &part, 1);
  return real(fd, data, size, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
  REAL(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
  struct iovec part = {(void *)data, size};
  sends(fd, &part, 1);
  return real(fd, data, size, flags, to, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
  sends(fd, message->msg_iov, (int)message->msg_iovlen);
  return real(fd, message, flags);
}

static int synced(int fd, int failed) {
  char name[PATH_MAX];
  if (!failed && watched(fd, name)) note('F', 0, name, NULL, 0);
  return failed;
}

int fsync(int fd) {
  REAL(int, fsync, int);
  return synced(fd, real(fd));
}

int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  return synced(fd, real(fd));
}

static int cut(int fd, int failed, int64_t size) {
  char name[PATH_MAX];
  if (!failed && watched(fd, name)) note('T', size, name, NULL, 0);
  return failed;
}

int ftruncate(int fd, off_t size) {
  REAL(int, ftruncate, int, off_t);
  return cut(fd, real(fd, size), size);
}

int ftruncate64(int fd, off64_t size) {
  REAL(int, ftruncate64, int, off64_t);
  return cut(fd, real(fd, size), size);
}

int unlink(const char *path) {
  REAL(int, unlink, const char *);
  char name[PATH_MAX];
  int known = realpath(path, name) && !strncmp(name, under, strlen(under));
  int failed = real(path);
  if (!failed && known && trace >= 0) note('D', 0, name, NULL, 0);
  return failed;
}
