/* SPDX-License-Identifier: MIT */
/* Texts that are made from the tables of options: --help, man pages, completion. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

void help_overview(FILE *out)
{
    fprintf(out, "usage: platter COMMAND [options] ...\n"
                 "Virtual machine disks in any format: read, write, convert, compare.\n\n"
                 "commands:\n");
    for (int i = 0; verbs[i]; i++)
        if (group_word(NULL, verbs[i]))
            fprintf(out, "  %-10s%s\n", verbs[i]->name, verbs[i]->summary);
    for (const struct group *g = groups; g->name; g++)
        fprintf(out, "  %-10s%s\n", g->name, g->summary);
    fputs("\n'platter COMMAND --help' or 'platter help COMMAND' tells its options;\n"
          "'platter --version' the version. IMAGE@NAME is a view (a snapshot) of IMAGE.\n\n"
          "examples:\n"
          "  platter convert -p -O qcow2 vm.vmdk vm.qcow2\n"
          "  platter info vm.qcow2\n"
          "  platter compare vm.vmdk vm.qcow2\n",
          out);
}

/* "-f FMT", "-U, --force-share", "--output=human|json". */
static void opt_spell(const struct opt *o, char *buf, size_t size)
{
    if (o->letter && o->name)
        snprintf(buf, size, "-%c, --%s%s%s", o->letter, o->name, o->arg ? "=" : "",
                 o->arg ? o->arg : "");
    else if (o->letter)
        snprintf(buf, size, "-%c%s%s", o->letter, o->arg ? " " : "", o->arg ? o->arg : "");
    else
        snprintf(buf, size, "--%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
}

static void print_indented(FILE *out, const char *lines)
{
    for (const char *end; (end = strchr(lines, '\n')); lines = end + 1)
        fprintf(out, "  %.*s\n", (int)(end - lines), lines);
}

void help_verb(const struct verb *verb, FILE *out)
{
    char left[64];
    fprintf(out, "usage: platter %s [options]%s%s\n%s\n\noptions:\n", verb->name,
            *verb->operands ? " " : "", verb->operands, verb->summary);
    for (const struct opt *o = verb->opts; o->help; o++) {
        if (o->kind == OPT_REFUSED)
            continue;
        opt_spell(o, left, sizeof left);
        fprintf(out, strlen(left) > 24 ? "  %s\n%28s%s\n" : "  %-24s%.0s  %s\n", left, "", o->help);
    }
    fprintf(out, "  %-24s  %s\n\nexamples:\n", "-h, --help", "print this");
    print_indented(out, verb->examples);
}

static void help_usage(const struct verb *verb, const char *program, FILE *out)
{
    char left[64];
    fprintf(out, "  %s%s", program, verb->name);
    for (const struct opt *o = verb->opts; o->help; o++) {
        if (o->kind == OPT_REFUSED)
            continue;
        opt_spell(o, left, sizeof left);
        fprintf(out, " [%s]", left);
    }
    fprintf(out, "%s%s\n", *verb->operands ? " " : "", verb->operands);
}

void help_group(const struct group *group, FILE *out)
{
    const char *program = called_as_vma() ? "" : "platter ";
    fprintf(out, "usage: %s%s COMMAND [options] ...\n%s\n\ncommands:\n", program, group->name,
            group->summary);
    for (int i = 0; verbs[i]; i++)
        if (group_word(group, verbs[i]))
            fprintf(out, "  %-10s%s\n", group_word(group, verbs[i]), verbs[i]->summary);
    fputs("\n", out);
    for (int i = 0; verbs[i]; i++)
        if (group_word(group, verbs[i]))
            help_usage(verbs[i], program, out);
}

/* ---- man pages ------------------------------------------------------------------------------- */

/* Text of a roff line: hyphens and backslashes as they are, no line starts with a control. */
void roff_text(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
    }
}

static void man_usage(const struct verb *verb)
{
    char left[64];
    printf(".B platter %s\n", verb->name);
    for (const struct opt *o = verb->opts; o->help; o++) {
        if (o->kind == OPT_REFUSED)
            continue;
        opt_spell(o, left, sizeof left);
        putchar('[');
        roff_text(left);
        puts("]");
    }
    printf(".I %s\n", verb->operands);
}

static void man_options(const struct verb *verb)
{
    char left[64];
    for (const struct opt *o = verb->opts; o->help; o++) {
        if (o->kind == OPT_REFUSED)
            continue;
        opt_spell(o, left, sizeof left);
        fputs(".TP\n.B \"", stdout);
        roff_text(left);
        fputs("\"\n", stdout);
        roff_text(o->help);
        puts(".");
    }
}

static void man_examples(const struct verb *verb)
{
    for (const char *line = verb->examples, *end; (end = strchr(line, '\n')); line = end + 1) {
        char *copy = strndup(line, (size_t)(end - line));
        roff_text(copy ? copy : "");
        putchar('\n');
        free(copy);
    }
}

static void man_commands(void)
{
    puts(".SH COMMANDS");
    for (int i = 0; verbs[i]; i++)
        if (group_word(NULL, verbs[i]))
            printf(".TP\n.BR platter\\-%s (1)\n%s.\n", verbs[i]->name, verbs[i]->summary);
    for (const struct group *g = groups; g->name; g++)
        printf(".TP\n.BR platter\\-%s (1)\n%s.\n", g->name, g->summary);
}

/* What a page is about: the program, a verb, or the verbs of a group. */
struct page {
    const char *name;
    const struct verb *verb;
    const struct group *group;
};

static bool page_has(const struct page *page, const struct verb *verb)
{
    return page->verb == verb || (page->group && group_word(page->group, verb));
}

static void page_synopsis(const struct page *page)
{
    const char *between = ".SH SYNOPSIS\n";
    for (int i = 0; verbs[i]; i++) {
        if (!page_has(page, verbs[i]))
            continue;
        fputs(between, stdout);
        man_usage(verbs[i]);
        between = ".br\n";
    }
}

static void page_options(const struct page *page)
{
    puts(".SH OPTIONS");
    for (int i = 0; verbs[i]; i++) {
        if (!page_has(page, verbs[i]))
            continue;
        if (page->group)
            printf(".SS platter %s\n%s.\n", verbs[i]->name, verbs[i]->summary);
        man_options(verbs[i]);
    }
}

static void page_examples(const struct page *page)
{
    puts(".SH EXAMPLES\n.nf");
    for (int i = 0; verbs[i]; i++)
        if (page_has(page, verbs[i]))
            man_examples(verbs[i]);
    puts(".fi");
}

/* Copies the prose; its lines @OPTIONS@ and @COMMANDS@ stand for what the tables say. */
static void page_body(const struct page *page, FILE *prose)
{
    char line[1024];
    while (fgets(line, sizeof line, prose)) {
        if (page->name && strcmp(line, "@OPTIONS@\n") == 0)
            page_options(page);
        else if (strcmp(line, "@COMMANDS@\n") == 0)
            man_commands();
        else
            fputs(line, stdout);
    }
}

int man_page(const char *name, const char *prose_path)
{
    struct page page = {.verb = verb_find(name), .group = group_find(name)};
    page.name = page.verb || page.group ? name : NULL;
    FILE *prose = fopen(prose_path, "r");
    if (!prose) {
        say("%s: %s", prose_path, strerror(errno));
        return EXIT_FAILED;
    }
    printf(
        ".TH platter%s%s 1 \"\" \"platter %s\" \"User Commands\"\n.SH NAME\nplatter%s%s \\- %s\n",
        page.name ? "\\-" : "", page.name ? name : "", platter_version(), page.name ? "\\-" : "",
        page.name ? name : "",
        page.verb    ? page.verb->summary
        : page.group ? page.group->summary
                     : "virtual machine disks in any format");
    if (page.name)
        page_synopsis(&page);
    page_body(&page, prose);
    fclose(prose);
    if (page.name) {
        page_examples(&page);
        puts(".SH SEE ALSO\n.BR platter (1)");
    }
    return output_end(EXIT_FINE);
}

/* ---- completion of bash ---------------------------------------------------------------------- */

static void print_format_names(void)
{
    struct platter_error err = {0};
    char *text = NULL;
    const json_t *entry;
    size_t i;
    if (platter_formats(&text, &err))
        return;
    json_t *all = json_loads(text, 0, NULL);
    json_array_foreach (all, i, entry) {
        printf("%s%s", i ? " " : "", json_string_value(json_object_get(entry, "name")));
    }
    json_decref(all);
    platter_free(text);
}

/* What may stand behind an option, as a line of a case statement. */
static void complete_argument(const struct verb *verb, const struct opt *o)
{
    if (!o->arg || o->kind == OPT_REFUSED)
        return;
    fputs("        ", stdout);
    if (o->letter)
        printf("'%s:-%c'%s", verb->name, o->letter, o->name ? "|" : "");
    if (o->name)
        printf("'%s:--%s'", verb->name, o->name);
    fputs(") ", stdout);
    if (o->kind == OPT_FORMAT) {
        fputs("COMPREPLY=($(compgen -W '", stdout);
        print_format_names();
        fputs("' -- \"$cur\"))", stdout);
    } else if (o->kind == OPT_CHOICE) {
        fputs("COMPREPLY=($(compgen -W '", stdout);
        for (const char *c = o->arg; *c; c++)
            putchar(*c == '|' ? ' ' : *c);
        fputs("' -- \"$cur\"))", stdout);
    } else if (o->kind == OPT_PLACE) {
        fputs("compopt -o nospace; COMPREPLY=($(compgen -W '", stdout);
        print_place_keys();
        fputs("' -- \"$cur\"))", stdout);
    } else if (o->kind == OPT_FILE || o->kind == OPT_ALLOW || o->kind == OPT_KEY_FILE) {
        fputs("COMPREPLY=($(compgen -f -- \"$cur\"))", stdout);
    } else {
        fputs("COMPREPLY=()", stdout);
    }
    puts("; return ;;");
}

static void complete_names(const struct verb *verb)
{
    printf("        '%s') options='", verb->name);
    for (const struct opt *o = verb->opts; o->help; o++) {
        if (o->kind == OPT_REFUSED)
            continue;
        if (o->letter)
            printf("-%c ", o->letter);
        if (o->name)
            printf("--%s%s ", o->name, o->arg ? "=" : "");
    }
    puts("--help' ;;");
}

/* The second word of the verbs of a group. */
static void complete_group(const struct group *group)
{
    printf("        %s) words='--help", group->name);
    for (int i = 0; verbs[i]; i++)
        if (group_word(group, verbs[i]))
            printf(" %s", group_word(group, verbs[i]));
    puts("' ;;");
}

int completion_bash(void)
{
    puts("# Completion of platter for bash; made from its tables of options.\n"
         "_platter()\n{\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} options=''\n"
         "    [[ $cur == = ]] && cur=''\n"
         "    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
         "    if ((COMP_CWORD == 1)); then");
    fputs("        COMPREPLY=($(compgen -W 'help --version --help", stdout);
    for (int i = 0; verbs[i]; i++)
        if (group_word(NULL, verbs[i]))
            printf(" %s", verbs[i]->name);
    for (const struct group *g = groups; g->name; g++)
        printf(" %s", g->name);
    puts("' -- \"$cur\"))\n        return\n    fi\n"
         "    local verb=${COMP_WORDS[1]} words=''\n    case $verb in");
    for (const struct group *g = groups; g->name; g++)
        complete_group(g);
    puts("    esac\n"
         "    if [[ $words ]] && ((COMP_CWORD == 2)); then\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
         "    [[ $words ]] && verb+=\" ${COMP_WORDS[2]}\"\n    case $verb:$prev in");
    for (int i = 0; verbs[i]; i++)
        for (const struct opt *o = verbs[i]->opts; o->help; o++)
            complete_argument(verbs[i], o);
    puts("    esac\n    case $verb in");
    for (int i = 0; verbs[i]; i++)
        complete_names(verbs[i]);
    puts("    esac\n"
         "    if [[ $cur == -* ]]; then\n"
         "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
         "        if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi\n"
         "    else\n"
         "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "    fi\n}\n"
         "complete -o filenames -F _platter platter");
    return output_end(EXIT_FINE);
}
