# The table in the README is the one that the program prints, and the page of places has every key.
readme=${BASH_ENV%/*}/../../README.md
sed -n '/<!-- platter __tables -->/,/<!-- end -->/p' "$readme" | grep '^|' | diff - <(platter __tables) && echo "the README is right"
printf '.SH NAME\nx\n@PLACES@\n' >page
platter __places page >page.roff
for key in file_path url secret_key uri image_name ca_file; do
    count "^.BI $key=" <page.roff
done
