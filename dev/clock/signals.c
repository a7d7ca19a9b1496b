/* Two threads hand a turn to and fro 20,000 times, each waiting for its own with two seconds' patience. Prints the longest
 * wait in ms. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn;
static int64_t longest;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *play(void *mine) {
    int me = *(int *)mine;
    for (int i = 0; i < 20000; i++) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 2;
        int64_t begun = now_ms();
        pthread_mutex_lock(&mutex);
        while (turn != me && pthread_cond_timedwait(&cond, &mutex, &until) == 0) {}
        turn = 1 - me;
        pthread_mutex_unlock(&mutex);
        pthread_cond_signal(&cond);
        if (now_ms() - begun > longest) longest = now_ms() - begun;
    }
    return 0;
}

int main(void) {
    pthread_t other;
    int mine[2] = {0, 1};
    pthread_create(&other, 0, play, &mine[1]);
    play(&mine[0]);
    pthread_join(other, 0);
    printf("%lld\n", (long long)longest);
    return 0;
}
