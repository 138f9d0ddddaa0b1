// Peas for C#: engines and jobs as objects, failures as exceptions. Peas.g.cs, beside it, is written from the same items as
// peas.h; this file is written by hand and adds nothing that peas.h does not promise.
//
//     using var engine = new Peas.Engine("upload_limit=20M");
//     var job = engine.Install("game.peas", "Game", "trust=key:...");
//     foreach (var e in engine.Poll(0)) ...          // once a frame
//     await engine.WaitAsync(job);
//
// Unity: put libpeas into Assets/Plugins, call Poll from Update. No callback from a foreign thread is needed, so IL2CPP works as is.

namespace Peas {
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading.Tasks;

/// <summary>Why a call failed, or a job ended.</summary>
public sealed class PeasException : Exception {
    /// <summary>The status.</summary>
    public peas_status_t Status { get; }
    /// <summary>errno or GetLastError(), or 0.</summary>
    public int OsCode { get; }

    internal PeasException(peas_status_t status, int osCode, string message) : base(message) {
        Status = status;
        OsCode = osCode;
    }

    internal static unsafe PeasException From(ref peas_error_t error) {
        fixed (byte* text = error.message.arr) {
            return new PeasException((peas_status_t)error.status, error.os_code, Text.Read(text));
        }
    }
}

/// <summary>Something that happened.</summary>
public struct Event {
    /// <summary>What; skip what you do not know.</summary>
    public peas_event_type_t Kind;
    /// <summary>Of an end: why.</summary>
    public peas_status_t Status;
    /// <summary>The job that it is about, or 0.</summary>
    public ulong Job;
    /// <summary>Bytes done, and in all.</summary>
    public ulong BytesDone, BytesTotal;
    /// <summary>Of a notice: what it is about, and its number.</summary>
    public peas_notice_type_t Notice;
    /// <summary>Of a notice: a number.</summary>
    public ulong Value;
    /// <summary>One line; may be empty.</summary>
    public string Message;
}

/// <summary>Threads, sockets and jobs. Any thread may use it; dispose of it to stop.</summary>
public sealed unsafe class Engine : IDisposable {
    private peas_engine_t* handle;

    /// <summary>Starts an engine with "name=value" options.</summary>
    public Engine(params string[] options) {
        peas_error_t error;
        using (var list = new Texts(options)) {
            peas_engine_t* made;
            if (Ffi.peas_engine_new(list.Pointers, &made, &error) != peas_status_t.PEAS_OK) throw PeasException.From(ref error);
            handle = made;
        }
    }

    private delegate peas_status_t Start(byte* first, byte* second, byte** options, ulong* job, peas_error_t* error);

    private ulong Begin(Start start, string first, string second, string[] options) {
        peas_error_t error;
        ulong job = 0;
        using (var places = new Texts(new[] { first, second }))
        using (var list = new Texts(options)) {
            var status = start(places.Pointers[0], places.Pointers[1], list.Pointers, &job, &error);
            if (status != peas_status_t.PEAS_OK) throw PeasException.From(ref error);
        }
        return job;
    }

    /// <summary>Makes a pea of a file or folder.</summary>
    public ulong Create(string source, string pea, params string[] options) =>
        Begin((a, b, o, j, e) => Ffi.peas_create(handle, a, b, o, j, e), source, pea, options);
    /// <summary>Shares what lies at source.</summary>
    public ulong Share(string pea, string source, params string[] options) =>
        Begin((a, b, o, j, e) => Ffi.peas_share(handle, a, b, o, j, e), pea, source, options);
    /// <summary>Makes target what the pea says; the options must say what makes the pea the right one.</summary>
    public ulong Install(string pea, string target, params string[] options) =>
        Begin((a, b, o, j, e) => Ffi.peas_install(handle, a, b, o, j, e), pea, target, options);
    /// <summary>Hashes what lies at place, changes nothing.</summary>
    public ulong Verify(string pea, string place, params string[] options) =>
        Begin((a, b, o, j, e) => Ffi.peas_verify(handle, a, b, o, j, e), pea, place, options);

    /// <summary>Ends a job.</summary>
    public void Cancel(ulong job) => Check(Ffi.peas_cancel(handle, job));

    /// <summary>Changes a job, or with job 0 the engine.</summary>
    public void Set(ulong job, params string[] options) {
        peas_error_t error;
        using (var list = new Texts(options)) {
            if (Ffi.peas_set(handle, job, list.Pointers, &error) != peas_status_t.PEAS_OK) throw PeasException.From(ref error);
        }
    }

    /// <summary>True when complete, false when the time ran out; throws why the job ended otherwise.</summary>
    public bool Wait(ulong job, int timeoutMs = -1) {
        peas_error_t error;
        var status = Ffi.peas_wait(handle, job, timeoutMs, &error);
        if (status == peas_status_t.PEAS_TIMEOUT) return false;
        if (status != peas_status_t.PEAS_OK) throw PeasException.From(ref error);
        return true;
    }

    /// <summary>Completes with the job.</summary>
    public Task WaitAsync(ulong job) => Task.Run(() => { Wait(job); });

    /// <summary>What a job is doing. Cheap enough for every frame.</summary>
    public peas_info_t Info(ulong job) {
        peas_info_t info;
        Check(Ffi.peas_job_info(handle, job, &info));
        return info;
    }

    /// <summary>Where the engine listens, who it is, its limits.</summary>
    public peas_engine_info_t Info() {
        peas_engine_info_t info;
        Check(Ffi.peas_engine_get_info(handle, &info));
        return info;
    }

    /// <summary>Takes waiting events, waiting for the first.</summary>
    public List<Event> Poll(int timeoutMs = 0) {
        const int most = 16;
        var taken = stackalloc peas_event_t[most];
        var count = Ffi.peas_poll(handle, taken, most, timeoutMs);
        if (count < 0) Check((peas_status_t)count);
        var events = new List<Event>(count);
        for (var i = 0; i < count; i++) {
            events.Add(new Event {
                Kind = (peas_event_type_t)taken[i].kind, Status = (peas_status_t)taken[i].status, Job = taken[i].job,
                BytesDone = taken[i].bytes_done, BytesTotal = taken[i].bytes_total,
                Notice = (peas_notice_type_t)taken[i].notice, Value = taken[i].value, Message = Text.Read(taken[i].message.arr),
            });
        }
        return events;
    }

    /// <summary>Statistics as JSON.</summary>
    public string Stats(ulong job = 0) => Text.Fill((to, capacity) => Ffi.peas_stats(handle, job, to, capacity));

    /// <summary>What a pea says, as JSON.</summary>
    public static string Describe(string pea) {
        using (var path = new Texts(new[] { pea })) {
            peas_error_t error;
            var failed = &error;
            var first = path.Pointers[0];
            var text = Text.Fill((to, capacity) => Ffi.peas_describe(first, to, capacity, failed));
            if ((peas_status_t)error.status != peas_status_t.PEAS_OK) throw PeasException.From(ref error);
            return text;
        }
    }

    /// <summary>Ends early, and says whether all was done in time.</summary>
    public bool Close(uint timeoutMs) {
        var ending = handle;
        handle = null;
        return Ffi.peas_engine_close(ending, timeoutMs) == peas_status_t.PEAS_OK;
    }

    /// <summary>Ends the engine, within three seconds.</summary>
    public void Dispose() {
        Close(3000);
        GC.SuppressFinalize(this);
    }

    /// <summary>An engine that nobody disposed of.</summary>
    ~Engine() { Close(0); }

    private static void Check(peas_status_t status) {
        if (status != peas_status_t.PEAS_OK) throw new PeasException(status, 0, Text.Read(Ffi.peas_status_string((int)status)));
    }
}

/// <summary>UTF-8, in and out.</summary>
internal static unsafe class Text {
    internal delegate UIntPtr Write(byte* to, UIntPtr capacity);

    internal static string Read(byte* text) {
        var length = 0;
        while (text[length] != 0) length++;
        return Encoding.UTF8.GetString(text, length);
    }

    internal static string Fill(Write write) {
        var buffer = new byte[4096];
        for (;;) {
            ulong length;
            fixed (byte* to = buffer) {
                length = write(to, (UIntPtr)buffer.Length).ToUInt64();
            }
            if (length < (ulong)buffer.Length) return Encoding.UTF8.GetString(buffer, 0, (int)length);
            buffer = new byte[length + 1024];
        }
    }
}

/// <summary>A NULL-terminated array of strings, for the time of a call.</summary>
internal sealed unsafe class Texts : IDisposable {
    private readonly IntPtr memory;
    internal byte** Pointers => (byte**)memory;

    internal Texts(string[] texts) {
        memory = Marshal.AllocHGlobal((texts.Length + 1) * IntPtr.Size);
        for (var i = 0; i < texts.Length; i++) {
            var bytes = Encoding.UTF8.GetBytes(texts[i] + "\0");
            var copy = Marshal.AllocHGlobal(bytes.Length);
            Marshal.Copy(bytes, 0, copy, bytes.Length);
            Pointers[i] = (byte*)copy;
        }
        Pointers[texts.Length] = null;
    }

    public void Dispose() {
        for (var at = Pointers; *at != null; at++) Marshal.FreeHGlobal((IntPtr)(*at));
        Marshal.FreeHGlobal(memory);
    }
}
}
