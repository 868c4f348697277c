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
        fprintf(out, "  %-10s%s\n", verbs[i]->name, verbs[i]->summary);
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

/* ---- man pages ------------------------------------------------------------------------------- */

/* Text of a roff line: hyphens and backslashes as they are, no line starts with a control. */
static void roff_text(const char *text)
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

static void man_synopsis(const struct verb *verb)
{
    char left[64];
    printf(".SH SYNOPSIS\n.B platter %s\n", verb->name);
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
    puts(".SH OPTIONS");
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
    puts(".SH EXAMPLES\n.nf");
    for (const char *line = verb->examples, *end; (end = strchr(line, '\n')); line = end + 1) {
        char *copy = strndup(line, (size_t)(end - line));
        roff_text(copy ? copy : "");
        putchar('\n');
        free(copy);
    }
    puts(".fi");
}

static void man_verbs(void)
{
    puts(".SH COMMANDS");
    for (int i = 0; verbs[i]; i++)
        printf(".TP\n.BR platter\\-%s (1)\n%s.\n", verbs[i]->name, verbs[i]->summary);
}

/* Copies the prose; its lines @OPTIONS@ and @COMMANDS@ stand for what the tables say. */
static void man_body(const struct verb *verb, FILE *prose)
{
    char line[1024];
    while (fgets(line, sizeof line, prose)) {
        if (verb && strcmp(line, "@OPTIONS@\n") == 0)
            man_options(verb);
        else if (strcmp(line, "@COMMANDS@\n") == 0)
            man_verbs();
        else
            fputs(line, stdout);
    }
}

int man_page(const char *name, const char *prose_path)
{
    const struct verb *verb = verb_find(name);
    FILE *prose = fopen(prose_path, "r");
    if (!prose) {
        say("%s: %s", prose_path, strerror(errno));
        return EXIT_FAILED;
    }
    printf(
        ".TH platter%s%s 1 \"\" \"platter %s\" \"User Commands\"\n.SH NAME\nplatter%s%s \\- %s\n",
        verb ? "\\-" : "", verb ? name : "", platter_version(), verb ? "\\-" : "", verb ? name : "",
        verb ? verb->summary : "virtual machine disks in any format");
    if (verb)
        man_synopsis(verb);
    man_body(verb, prose);
    fclose(prose);
    if (verb) {
        man_examples(verb);
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
        printf("%s:-%c%s", verb->name, o->letter, o->name ? "|" : "");
    if (o->name)
        printf("%s:--%s", verb->name, o->name);
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
    } else if (o->kind == OPT_FILE || o->kind == OPT_ALLOW || o->kind == OPT_KEY_FILE) {
        fputs("COMPREPLY=($(compgen -f -- \"$cur\"))", stdout);
    } else {
        fputs("COMPREPLY=()", stdout);
    }
    puts("; return ;;");
}

static void complete_names(const struct verb *verb)
{
    printf("        %s) options='", verb->name);
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
        printf(" %s", verbs[i]->name);
    puts("' -- \"$cur\"))\n        return\n    fi\n    case ${COMP_WORDS[1]}:$prev in");
    for (int i = 0; verbs[i]; i++)
        for (const struct opt *o = verbs[i]->opts; o->help; o++)
            complete_argument(verbs[i], o);
    puts("    esac\n    case ${COMP_WORDS[1]} in");
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
