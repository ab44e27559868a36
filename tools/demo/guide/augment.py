"""Other wordings of a question: openings, synonyms, missing words, typing errors, capitals and punctuation."""

from __future__ import annotations

import random

HOW = """how do i|how can i|how to|how would i|how should i|how does one|how do you|what is the way to|tell me how to|
explain how to|show me how to|i want to|i need to|is there a way to|i would like to|i'd like to|can you tell me how to|
what must i do to|what do i do to|what do i have to do to|how could i|i don't know how to|help me to|i am trying to|
how am i supposed to|what's the best way to|steps to|what is the command to"""
ABLE = "can i|could i|may i|is it possible to|am i able to|is it allowed to|can you|is there a way to|would it be possible to|can one"
WHAT = """what is|what's|explain|tell me about|describe|what exactly is|can you explain|please explain|define|whats|what are|
i don't understand|what do you know about|could you explain|what is meant by|give me information about"""
HAS = "is there|do you have|does it have|are there|is there any|do we have|does this have|does the program have|does it offer"
DOES = "does it|will it|can it|does this|would it|does the program|does this software"
WHICH = "which|what|tell me which|tell me what|list the"
WHY = "why does|why is|why do|what is the reason that|how come|why did|why|for what reason does|why would"
IF = "what if|what happens if|what happens when|what will happen if|what does it do when|what is done if|what happens in case"
OPENINGS = [[o.strip() for o in group.replace("\n", "").split("|")] for group in (HOW, ABLE, WHAT, HAS, DOES, WHICH, WHY, IF)]

# The first word of a line may stand for any other of it, and they for each other.
SYNONYMS = """use,choose,select,pick,take,employ,apply
show,print,list,display,view,see
gpu,graphics card,video card,card,cuda device,nvidia card
gpus,graphics cards,video cards,cards
cpu,processor
ram,memory,main memory,system memory
vram,gpu memory,video memory,memory of the gpu
fast,quick,rapid,speedy
faster,quicker,speedier
slow,sluggish,not fast
speed,pace,performance,tokens per second
big,large,huge
small,little,tiny
option,flag,parameter,argument,setting
options,flags,parameters,arguments,settings
program,tool,application,software,app
programs,tools,applications
file,checkpoint,model file
run,start,execute,launch
convert,transform,turn,translate,change
check,verify,test,make sure
model,network,language model,llm
supported,possible,available,provided
support,provide,offer,handle,have
need,require
needs,requires
needed,required,necessary
kept,stored,held,saved
keep,store,hold
set,change,choose,adjust
make,create,produce,generate
write,save,dump,store
several,multiple,many,more than one
two,2,both
text,document,prompt
can,could,may
happens,occurs,goes on
explain,describe,clarify
without,with no,not using
must,should,have to,need to
build,compile,make
built,compiled,made
install,set up,put
error,message,problem,failure
wrong,bad,incorrect,broken
reply,answer,response,output
replies,answers,responses
message,question,prompt,input
conversation,chat,dialogue,session,talk
delete,remove,erase,clear
begin,start
end,finish,stop,quit
quit,leave,exit,end
default,standard,normal
precision,number format,data type
bits,bit
layers,layer
weights,parameters,tensors
quantized,quantised,compressed
quantization,quantisation,compression
meaning,sense
folder,directory,path
machine,computer,pc,system,box
download,get,fetch
developer,author,maker
different,another,other
difference,distinction
between,of
compare,contrast
measure,time,benchmark,determine
quality,accuracy,exactness
accuracy,quality,exactness,precision
repeat,redo,do again
random,chance
history,past
terminal,console,shell,command line
load,open,read,import
loading,opening,reading
fit,go
long,lengthy
prompt,input,text
licence,license
vocabulary,vocab,tokens
tokenizer,tokeniser
purpose,use,point
does,will,would"""

FILLERS = set(
    """the a an is are do does i my to of in for it can how what with on and be me at all that this there please you
    which will was am when where why tell explain show about would should could into from by its have has""".split()
)
BEFORE = """please |hi, |hello, |hey, |ok, |so |and |i have a question, |quick question, |sorry, |can you tell me, |
please tell me, |um, |well, |now |hey there, |one more thing, |i wonder, |excuse me, |hi |hey |ok |good, |thanks, |and now, |
tell me, |question, |also |next, |could you tell me |do you know |just wondering, |help, |actually, |i was wondering, |
let me ask, |a beginner's question, |hm, |but """.replace("\n", "").split("|")
AFTER = """ please| thanks|, please| thank you| exactly| then| here|, thanks| again| in this software| with this program|
 in rwkv| with this| in this program| actually| now| for me| right now| at all| in chat| these days|, can you tell me|
, do you know|, i wonder| in general| there| if i may ask|, just asking""".replace("\n", "").split("|")
NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuiop[sdfghjkl;xcvbnm,"))


def synonym_table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for line in SYNONYMS.splitlines():
        words = line.split(",")
        for word in words:
            table.setdefault(word, []).extend(other for other in words if other != word)
    return table


TABLE = synonym_table()


def reopened(question: str, rng: random.Random) -> str:
    """The same question with another opening."""
    for group in OPENINGS:
        for opening in group:
            if question.startswith(opening + " "):
                return rng.choice(group) + question[len(opening) :]
    return question


def replaced(words: list[str], share: float, rng: random.Random) -> list[str]:
    return [rng.choice(TABLE[word]) if word in TABLE and rng.random() < share else word for word in words]


def thinned(words: list[str], share: float, rng: random.Random) -> list[str]:
    return [word for word in words if word not in FILLERS or rng.random() >= share] or words


def disturbed(words: list[str], others: list[str], rng: random.Random) -> list[str]:
    """A word missing, foreign, or at another place: not in short questions, which would lose their sense."""
    words = list(words)
    if len(words) > 4 and rng.random() < 0.15:
        words.pop(rng.randrange(len(words)))
    if len(words) > 3 and rng.random() < 0.08:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    if len(words) > 4 and rng.random() < 0.08:
        words[rng.randrange(len(words))] = rng.choice(others)
    if len(words) > 2 and rng.random() < 0.08:
        words.insert(rng.randrange(len(words) + 1), rng.choice(others))
    return words


def reworded(question: str, others: list[str], rng: random.Random) -> str:
    """`others` are words that may stand in place of one that the model has never met."""
    if rng.random() < 0.45:
        question = reopened(question, rng)
    words = replaced(question.split(" "), rng.choice([0, 0.15, 0.35]), rng)
    words = thinned(words, rng.choice([0, 0, 0.2, 0.5, 1.0 if len(words) > 3 else 0]), rng)
    return " ".join(disturbed(words, others, rng))


def misspelt(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    letter, rest = text[at], text[at + 1 :]
    if not letter.isalpha() or len(text) < 4:
        return text
    spelling = rng.choice(["", letter * 2, NEIGHBOURS.get(letter, letter), rest[:1] + letter])
    return text[:at] + spelling + (rest[1:] if len(spelling) == 2 and spelling != letter * 2 else rest)


def typed(question: str, rng: random.Random) -> str:
    """As people type it."""
    if rng.random() < 0.12:
        question = rng.choice(BEFORE) + question
    if rng.random() < 0.1:
        question += rng.choice(AFTER)
    for share in (0.15, 0.05):
        if rng.random() < share:
            question = misspelt(question, rng)
    kind = rng.random()
    if kind < 0.4:
        question = question[:1].upper() + question[1:]
    elif kind < 0.42:
        question = question.upper()
    ends = ["?", "", ".", "!", " ?", "??", "..."]
    return question + rng.choices(ends, [50, 40, 4, 2, 2, 1, 1])[0]
