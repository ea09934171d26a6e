/* Host names are looked up by a thread with descriptors of its own, while the program looks up others. What the modules of
 * nsswitch.conf(5) keep for the process must not mix the two up.
 *
 * The program has an nsswitch.conf, and a name server, in a mount namespace of its own, for which it needs root. With
 * CHECK_HOSTS in the environment other modules are asked ("sss dns"). */
#define _GNU_SOURCE

#include "check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 12, MOST = 512, LOOKUPS = 4, DEADLINE = 120 };

static char folder[] = "/dev/shm/tlsresume-names-XXXXXX";
static char server_address[32];

/* How often the name server was asked for names that begin with this letter. */
static volatile unsigned *asked;

/* ---- The name server: every name is an address where nobody listens. ---- */

static void answers(int socket)
{
    static const unsigned char ADDRESS[] = {0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1};
    unsigned char message[MOST + sizeof ADDRESS];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t len = recvfrom(socket, message, MOST, 0, (struct sockaddr *)&from, &from_len);
    if (len <= HEADER)
        return;
    size_t question = HEADER;
    while (question < (size_t)len && message[question] != 0)
        question += message[question] + 1;
    size_t end = question + 5;
    if (end > (size_t)len)
        return;
    bool wants_address = message[question + 2] == 1;
    asked[message[HEADER + 1]]++;
    message[2] = 0x81, message[3] = 0x80;
    memset(message + 6, 0, 6);
    message[7] = wants_address;
    memcpy(message + end, ADDRESS, sizeof ADDRESS);
    sendto(socket, message, end + (wants_address ? sizeof ADDRESS : 0), 0,
           (struct sockaddr *)&from, from_len);
}

static pid_t name_server(void)
{
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned number = (unsigned)getpid();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
    snprintf(server_address, sizeof server_address, "127.%u.%u.%u", 64 + (number >> 16) % 64,
             (number >> 8) % 256, number % 256);
    CHECK(inet_pton(AF_INET, server_address, &address.sin_addr) == 1);
    CHECK_SAYING(server >= 0 && bind(server, (struct sockaddr *)&address, sizeof address) == 0,
                 "no name server at %s: run this as root", server_address);
    asked = mmap(NULL, 256 * sizeof *asked, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(asked != MAP_FAILED);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(2 * DEADLINE);
        for (;;)
            answers(server);
    }
    close(server);
    return pid;
}

/* ---- The mount namespace ---- */

static void file_is(const char *name, const char *text, char path[64])
{
    snprintf(path, 64, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void file_in_etc(const char *name, const char *text)
{
    char path[64], in_etc[64];
    file_is(name, text, path);
    snprintf(in_etc, sizeof in_etc, "/etc/%s", name);
    CHECK_SAYING(mount(path, in_etc, "", MS_BIND, NULL) == 0, "mount at %s", in_etc);
}

static void names_come_from(const char *modules)
{
    char text[128];
    CHECK_SAYING(unshare(CLONE_NEWNS) == 0, "mount namespaces are refused here: run this as root");
    CHECK(mount("", "/", "", MS_REC | MS_PRIVATE, NULL) == 0);
    snprintf(text, sizeof text, "passwd: files\nhosts: %s\n", modules);
    file_in_etc("nsswitch.conf", text);
    snprintf(text, sizeof text, "nameserver %s\noptions timeout:30\n", server_address);
    file_in_etc("resolv.conf", text);
}

/* ---- The program ---- */

static int descriptors(void)
{
    int count = 0;
    DIR *all = opendir("/proc/self/fd");
    CHECK(all != NULL);
    for (struct dirent *one = readdir(all); one != NULL; one = readdir(all))
        count += one->d_name[0] != '.';
    closedir(all);
    return count;
}

static void program_looks_up(unsigned number)
{
    char name[32];
    struct addrinfo *found = NULL;
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    /* A name of its own each time: nobody remembers it. */
    snprintf(name, sizeof name, "p%u.example", number);
    int error = getaddrinfo(name, "80", &hints, &found);
    CHECK_SAYING(error == 0, "%s: %s", name, gai_strerror(error));
    freeaddrinfo(found);
}

static TLSRESUME *realm_with_redis(void)
{
    char text[256], secret[64];
    file_is("secret", "0123456789abcdef0123456789abcdef\n", secret);
    CHECK(chmod(secret, 0600) == 0);
    snprintf(text, sizeof text,
             "[redis]\nurl = \"redis://redis.example:1\"\n[cluster]\nsecret_file = \"%s\"\n"
             "[log]\nlevel = \"off\"\n",
             secret);
    return realm_new(text);
}

static void look_ups_by_two_leave_no_descriptor_behind(void)
{
    /* Modules may keep a few from the program's first look-up on. */
    for (unsigned i = 0; i < LOOKUPS; i++)
        program_looks_up(i);
    TLSRESUME *tr = realm_with_redis();
    int before = descriptors();
    CHECK(tlsresume_start(tr) == 1);
    time_t end = time(NULL) + DEADLINE;
    /* In turns: a module that keeps one descriptor for both would lose it each time. */
    for (unsigned round = 1; round <= LOOKUPS; round++) {
        unsigned seen = asked['r'];
        while (asked['r'] == seen) {
            CHECK_SAYING(time(NULL) < end, "the name of Redis is not looked up");
            program_looks_up(1000 * round + 1);
        }
        program_looks_up(1000 * round);
    }
    CHECK_EQUAL(descriptors(), before);
    tlsresume_free(tr);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    const char *modules = getenv("CHECK_HOSTS");
    CHECK(mkdtemp(folder) != NULL);
    pid_t server = name_server();
    names_come_from(modules != NULL ? modules : "files dns");
    CLAIM(look_ups_by_two_leave_no_descriptor_behind);
    kill(server, SIGKILL);
    CHECK(waitpid(server, NULL, 0) == server);
    char path[64];
    static const char *const FILES[] = {"nsswitch.conf", "resolv.conf", "secret"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/etc/%s", FILES[i]);
        umount(path);
        snprintf(path, sizeof path, "%s/%s", folder, FILES[i]);
        remove(path);
    }
    rmdir(folder);
    return check_end();
}
