/* The boundary between fthost and its plugins, for plugins in C. This file is all that such a plugin needs; it is generated from the
   Rust types of fthost-plugin-api, whose documentation and CHANGELOG.md say more. C99 and C++11, for 64-bit machines.

       cc -std=c99 -O2 -shared -fPIC -I PATH_OF_THIS_FILE -o libmethod.so method.c

   A plugin is a shared library with

   - notes, which a host reads before it runs any code of the file: FTHOST_PLUGIN_NOTE once, FTHOST_METHOD_NOTE for each method;
   - fthost_plugin_entry_v1, which gets the host's table and gives the plugin's, FtPluginApi;
   - FtPluginApi: `describe` says what the notes say, with the options; `create` makes an instance of a method;
   - a vtable for each kind of method: FtStrategyVtable, FtSchedulerVtable, FtRegularizerVtable, FtTaskHeadVtable.

   It computes by `call_op` of the host's table, with the ops listed below, and asks about the model by `model_call`. What crosses as text
   is JSON in UTF-8; its forms are listed below. examples/lora-c of fthost is a whole plugin.

   What may be null. A function or pointer where its comment says "Null ..."; beside all other functions of a plugin's tables stands "Never
   null". In the host's table no function of ABI 1.0 is null; one that came later is asked for by FTHOST_HAS and may be null. The `ptr` of a text or
   slice whose `len` is 0. The `data` of an instance or hook, which is the plugin's own. A handle is 0 where a comment says "or 0" or "or
   none". No other pointer is null, in either direction.

   What has no "Since" came with ABI 1.0. */
#ifndef FTHOST_PLUGIN_H
#define FTHOST_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

