/* SPDX-License-Identifier: MIT */
/*
 * Progress and signals. The line is qemu-img's, so that programs which read it go on to work; on a
 * terminal rate and time left stand behind it. A signal only sets a flag: the next progress
 * callback turns it into a cancel, so that the library takes its unfinished target away. The second
 * one, or the first where nothing can be cancelled or a server may let us wait before the first
 * callback, takes it away at once.
 */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* Handlers set them, and any thread looks. */
static atomic_int caught, asked, at_once;

static void on_end_now(int signal_number)
{
    platter_remove_unfinished();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void on_end(int signal_number)
{
    if (caught || at_once)
        on_end_now(signal_number);
    caught = signal_number;
}

static void on_ask(int signal_number)
{
    asked = signal_number;
}

/* Who started us may have had a signal ignored (nohup, a job in the background): that stays. */
static void catch (int signal_number, void (*handler)(int))
{
    struct sigaction old, now = {.sa_handler = handler, .sa_flags = SA_RESTART};
    if (sigaction(signal_number, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(signal_number, &now, NULL);
}

void signals_catch(bool can_cancel)
{
    at_once = false;
    catch (SIGINT, can_cancel ? on_end : on_end_now);
    catch (SIGTERM, can_cancel ? on_end : on_end_now);
    catch (SIGHUP, can_cancel ? on_end : on_end_now);
    if (can_cancel)
        catch (SIGUSR1, on_ask);
}

bool signals_end_at_once(bool now)
{
    bool before = at_once;
    fflush(stdout); /* what was said so far is said */
    at_once = now;
    if (now && caught)
        on_end_now(caught);
    return before;
}

bool signals_caught(void)
{
    return caught != 0;
}

void signals_raise(void)
{
    if (!caught)
        return;
    signal(caught, SIG_DFL);
    raise(caught);
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double percent(const struct platter_progress *p)
{
    return p->total ? 100.0 * (double)p->done / (double)p->total : 100.0;
}

/* Bytes a second, and seconds that are left; negative while nobody knows. */
static void estimate(const struct progress *p, double *ret_rate, double *ret_left)
{
    double spent = seconds_now() - p->started;
    *ret_rate = spent > 0.01 ? (double)p->now.moved / spent : 0;
    *ret_left = p->now.done && spent > 0.5
                    ? spent * (double)(p->now.total - p->now.done) / (double)p->now.done
                    : -1;
}

static void print_line(const struct progress *p, FILE *out, const char *end)
{
    fprintf(out, "    (%3.2f/100%%)", percent(&p->now));
    if (isatty(fileno(out))) {
        char size[32];
        double rate, left;
        estimate(p, &rate, &left);
        fprintf(out, "  %s/s", human_size((uint64_t)rate, size));
        if (left >= 0)
            fprintf(out, ", %.0f:%02.0f left", (double)(uint64_t)(left / 60),
                    (double)((uint64_t)left % 60));
        fputs("\033[K", out);
    }
    fputs(end, out);
    fflush(out);
}

static void print_event(const struct progress *p, FILE *out)
{
    double rate, left;
    estimate(p, &rate, &left);
    fprintf(out,
            "{\"event\": \"progress\", \"done\": %llu, \"total\": %llu, \"moved\": %llu, "
            "\"percent\": %.2f, \"rate\": %.0f, \"seconds-left\": ",
            (unsigned long long)p->now.done, (unsigned long long)p->now.total,
            (unsigned long long)p->now.moved, percent(&p->now), rate);
    fprintf(out, left < 0 ? "null}\n" : "%.0f}\n", left);
    fflush(out);
}

static void show(struct progress *p)
{
    if (p->json) {
        print_event(p, p->out);
        return;
    }
    print_line(p, p->out, "\r");
    p->shown = true;
}

void progress_start(struct progress *p, const struct args *args, bool stdout_taken)
{
    *p = (struct progress){.started = seconds_now(), .last = -1};
    p->json = args->progress_style && strcmp(args->progress_style, "json") == 0;
    if (p->json)
        p->out = stderr;
    else if ((args->progress || args->progress_style) && !args->quiet)
        p->out = stdout_taken ? stderr : stdout;
    p->now.total = 1; /* nothing is known yet: 0 % */
    if (p->out && !p->json)
        show(p);
}

int progress_tick(void *opaque, const struct platter_progress *now)
{
    struct progress *p = opaque;
    at_once = false;
    if (caught)
        return 1;
    p->now = *now;
    if (asked) {
        asked = 0;
        progress_clear(p);
        print_line(p, stderr, "\n");
    }
    double time = seconds_now();
    if (p->out && time - p->last >= 0.1) {
        p->last = time;
        show(p);
    }
    return 0;
}

void progress_end(struct progress *p, bool complete)
{
    if (!p->out)
        return;
    if (complete) {
        if (!p->now.size) /* there was nothing to do: never called */
            p->now.total = 0;
        p->now.done = p->now.total;
        show(p);
    }
    if (!p->json)
        fputc('\n', p->out);
    fflush(p->out);
    p->shown = false;
}

void progress_clear(struct progress *p)
{
    if (p->shown && isatty(fileno(p->out))) {
        fputs("\r\033[K", p->out);
        fflush(p->out);
    }
    p->shown = false;
}
